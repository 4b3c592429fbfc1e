"""`segda train --stages`: AdvEnt, pseudo-labels, ESL, as one command that goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from conftest import METHOD_SETTINGS, small_recipe
from segda import run as runs
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.errors import DataError, RecipeError, RunError
from segda.recipes.recipe import Recipe, parse_recipe
from segda.training import running, stages

RULE = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}


@pytest.fixture
def staged(camvid: Path, tmp_path: Path) -> Recipe:
    """Two steps of ESL on labels of two steps of AdvEnt."""
    teacher = tmp_path / "advent.yaml"
    teacher.write_text(small_recipe(camvid, "advent").override("steps=2").to_yaml())
    tree = small_recipe(camvid, "esl").override("steps=2", "seed=5").model_dump(mode="json")
    return parse_recipe(tree | {"pseudo_labels": {"recipe": str(teacher), "rule": RULE}}, "small recipe")


def test_three_stages_leave_what_three_commands_leave(staged, tmp_path, said):
    train(staged, tmp_path / "one" / "esl", stages=True)

    teacher, labels, run = (tmp_path / "three" / name for name in ("teacher", "labels", "esl"))
    train(runs.load_recipe(staged.pseudo_labels.recipe).override("seed=5"), teacher)
    pseudo_label([teacher], staged.data.target.set, RULE, labels, root=staged.data.root, precision="32")
    train(staged.override(f"data.target.labels={labels}"), run)

    for one, other in (("esl-teacher", teacher), ("esl", run)):
        file = "network.safetensors"
        ours, theirs = runs.read_tensors(tmp_path / "one" / one / file), runs.read_tensors(other / file)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (
        {path.name: path.read_bytes() for path in folder.glob("*.png")}
        for folder in (tmp_path / "one" / "esl-labels", labels)
    )
    assert ours == theirs and len(ours) == 3
    assert [line for line in said if line.startswith("stage")][1].startswith(
        "stage 2 of 3: labels of camvid:train:dusk"
    )


def test_what_is_there_is_skipped_and_what_stopped_goes_on(staged, tmp_path, monkeypatch, said):
    out = tmp_path / "esl"

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stages, "label_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(staged, out, stages=True)
    kept = (tmp_path / "esl-teacher" / "last.pt").stat().st_mtime_ns
    assert not out.exists()

    said.clear()
    train(staged, out, stages=True)
    assert f"{tmp_path / 'esl-teacher'} is there; skipped" in said
    assert (tmp_path / "esl-teacher" / "last.pt").stat().st_mtime_ns == kept
    assert runs.step_of(out) == 2

    said.clear()
    train(staged, out, stages=True)
    assert [line.endswith("is there; skipped") for line in said].count(True) == 3


def test_a_stage_that_stopped_before_its_first_checkpoint_begins_anew(staged, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running.loop, "run_steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(staged, tmp_path / "esl", stages=True)
    assert (tmp_path / "esl-teacher" / "recipe.yaml").is_file()
    assert not (tmp_path / "esl-teacher" / "last.pt").exists()
    train(staged, tmp_path / "esl", stages=True)
    assert runs.step_of(tmp_path / "esl") == 2


def test_a_finished_stage_of_another_recipe_is_no_stage_of_this_one(staged, tmp_path):
    train(staged, tmp_path / "esl", stages=True)
    with pytest.raises(RunError, match=r"esl-teacher was begun with another recipe \(seed: 5 then, 6 now\)"):
        train(staged.override("seed=6"), tmp_path / "esl", stages=True)


def test_labels_by_another_rule_are_not_those_of_this_recipe(staged, tmp_path):
    train(staged, tmp_path / "esl", stages=True)
    with pytest.raises(RunError, match=r"esl-labels was made by another rule .*0.1.*; use a new --out"):
        train(staged.override("pseudo_labels.rule.floor=0.2"), tmp_path / "esl", stages=True)


def test_stages_need_a_recipe_that_has_them(recipe, staged, tmp_path):
    with pytest.raises(RecipeError, match="no pseudo_labels block"):
        train(recipe, tmp_path / "run", stages=True)
    with pytest.raises(RecipeError, match="--check looks at one run"):
        train(staged, tmp_path / "run", stages=True, check=True)
    with pytest.raises(RecipeError, match="remove data.target.labels"):
        train(staged.override("data.target.labels=labels"), tmp_path / "run", stages=True)
    assert not list(tmp_path.glob("run*"))


def test_pseudo_labels_and_methods_must_go_together(camvid, staged, tmp_path):
    with pytest.raises(RecipeError, match=r"data.target.labels: method esl learns from pseudo-labels; .*--stages"):
        train(staged, tmp_path / "run")
    with pytest.raises(RecipeError, match="data.target.labels: has no effect with method advent"):
        train(small_recipe(camvid, "advent").override("data.target.labels=labels"), tmp_path / "run")
    with pytest.raises(DataError, match="labels"):
        train(staged.override(f"data.target.labels={tmp_path / 'labels'}"), tmp_path / "run")
    truth = camvid / "camvid" / "trainannot"
    with pytest.raises(DataError, match=r"pseudo_labels.json"):
        train(staged.override(f"data.target.labels={truth}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_rule_of_the_stages_is_checked_with_the_recipe(staged):
    tree = yaml.safe_load(staged.to_yaml())
    tree["pseudo_labels"]["rule"] = {**RULE, "flor": 0.1}
    with pytest.raises(
        RecipeError, match=r"pseudo_labels.rule entropy-median has no setting 'flor'; did you mean 'floor'"
    ):
        parse_recipe(tree, "here")


def test_esl_learns_from_the_labels_it_is_given(camvid, staged, tmp_path):
    train(staged, tmp_path / "esl", stages=True)
    logged = [line for line in runs.read_log(tmp_path / "esl") if "pseudo" in line]
    assert [line["step"] for line in logged] == [1, 2] and all(line["pseudo"] > 0 for line in logged)
    facts = json.loads((tmp_path / "esl" / "environment.json").read_text())
    assert facts["target_labels_read"] is False
    assert METHOD_SETTINGS["esl"] == METHOD_SETTINGS["advent"]
