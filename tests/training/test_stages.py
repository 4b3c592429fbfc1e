"""Stages: AdvEnt, pseudo-labels, ESL, as one recipe whose command goes on where it stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from conftest import ADAM, METHOD_SETTINGS, small_recipe
from segda import run as runs
from segda.commands.evaluate import evaluate_runs
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.errors import DataError, RecipeError, RunError
from segda.evaluation.metrics import read_list
from segda.ground.alone import alone_in
from segda.recipes.recipe import Recipe, parse_recipe, stages_of
from segda.training import running
from segda.training import stages as engine
from segda.training.stages import plan

RULE = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}
TEACHER = {"train": {"method": {"name": "advent", **METHOD_SETTINGS["advent"]}, "players": {"discriminators": ADAM}}}
LABELS = {"pseudo-label": {"runs": ["teacher"], "rule": RULE}}
LAST = {"train": {"data": {"target": {"labels": "labels"}}}}


def mean_of(*runs: str) -> dict:
    return {"evaluate": {"runs": [*runs], "mean": "probabilities"}}


STAGES = {"teacher": TEACHER, "labels": LABELS, "esl": LAST}


def with_stages(root: Path, stages: dict) -> Recipe:
    tree = small_recipe(root, "esl").override("steps=2", "seed=5").model_dump(mode="json", exclude_unset=True)
    return parse_recipe(tree | {"stages": stages}, "small recipe")


@pytest.fixture
def staged(camvid: Path) -> Recipe:
    """Two steps of ESL on labels of two steps of AdvEnt, without scores."""
    return with_stages(camvid, STAGES).override("evaluate.data=[]")


# Running


def test_three_stages_leave_what_three_commands_leave(staged, camvid, tmp_path, said):
    train(staged, tmp_path / "one" / "esl")

    teacher, labels, run = (tmp_path / "three" / name for name in ("teacher", "labels", "esl"))
    settings = ("steps=2", "seed=5", "evaluate.data=[]")
    train(small_recipe(camvid, "advent").override(*settings), teacher)
    pseudo_label([teacher], staged.data.target.set, RULE, labels, root=staged.data.root, precision="32")
    alone = small_recipe(camvid, "esl").override(*settings, f"data.target.labels={labels}")
    train(alone, run)

    for one, other in (("esl-teacher", teacher), ("esl", run)):
        file = "network.safetensors"
        ours, theirs = runs.read_tensors(tmp_path / "one" / one / file), runs.read_tensors(other / file)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    ours, theirs = (
        {path.name: path.read_bytes() for path in folder.glob("*.png")}
        for folder in (tmp_path / "one" / "esl-labels", labels)
    )
    assert ours == theirs and len(ours) == 3
    titles = [line for line in said if line.startswith("stage")]
    assert titles[1].startswith("stage 2 of 3, labels: labels of camvid:train:dusk -> ")
    assert runs.load_recipe_of(tmp_path / "one" / "esl").stages == {}, "a run is of one stage"
    # It learnt from the labels that it was given, and from no others.
    logged = [line for line in runs.read_log(tmp_path / "one" / "esl") if "pseudo" in line]
    assert [line["step"] for line in logged] == [1, 2] and all(line["pseudo"] > 0 for line in logged)
    facts = json.loads((tmp_path / "one" / "esl" / "environment.json").read_text())
    assert facts["target_labels_read"] is False


def test_what_is_there_is_skipped_and_what_stopped_goes_on_and_another_recipes_is_refused(
    staged, tmp_path, monkeypatch, said
):
    out = tmp_path / "esl"

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(engine, "label_images", interrupted)
        with pytest.raises(KeyboardInterrupt, match="esl-teacher and what is before it are there") as stop:
            train(staged, out)
    assert stop.value.saved, "what goes on must not begin anew"
    kept = (tmp_path / "esl-teacher" / "last.pt").stat().st_mtime_ns
    assert not out.exists()

    train(staged, out)
    assert f"{tmp_path / 'esl-teacher'} is there; skipped" in said
    assert (tmp_path / "esl-teacher" / "last.pt").stat().st_mtime_ns == kept
    assert runs.step_of(out) == 2

    said.clear()
    train(staged, out, resume=True)
    assert [line.endswith("is there; skipped") for line in said].count(True) == 3

    with pytest.raises(RunError, match=r"esl-teacher was begun with another recipe \(seed: 5 then, 6 now\)"):
        train(staged.override("seed=6"), out)
    with pytest.raises(RunError, match=r"esl-labels was made by another rule .*0.1.*; use a new --out"):
        train(staged.override("labels:rule.floor=0.2"), out)
    with pytest.raises(RunError, match=r"esl was begun with another recipe .*optim.lr"):
        train(staged.override("esl:optim.lr=0.5"), out)
    with runs.product_path(tmp_path / "esl-teacher", "student").open("ab") as file:
        file.write(b"\0")  # trained anew, with other weights
    with pytest.raises(RunError, match="esl-labels was made by another network than that of .*esl-teacher"):
        [stage.standing() for stage in plan(staged, out)[1:]]


def test_a_stage_that_stopped_before_its_first_checkpoint_begins_anew(staged, tmp_path, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running.loop, "run_steps", interrupted)
        with pytest.raises(KeyboardInterrupt) as stop:
            train(staged, tmp_path / "esl")
    assert not stop.value.saved
    assert (tmp_path / "esl-teacher" / "recipe.yaml").is_file()
    assert not (tmp_path / "esl-teacher" / "last.pt").exists()
    (teacher, *_) = plan(staged, tmp_path / "esl")
    assert teacher.standing() == "unsaved"


@pytest.mark.parametrize("held", ["esl", "esl-teacher"])
def test_all_runs_of_the_stages_are_one_writers_from_the_first_stage_on(staged, tmp_path, held):
    with alone_in(tmp_path / held, running.TRAINS):
        with pytest.raises(RunError, match=f"another process trains in .*{held} "):
            train(staged, tmp_path / "esl")
        assert [path.name for path in tmp_path.glob("esl*")] == [held]


def test_a_check_takes_steps_of_each_stage_that_can_and_writes_nothing(staged, tmp_path, said):
    train(staged, tmp_path / "run", check=True)
    text = "\n".join(said)
    assert [line for line in said if line.startswith("stage ")] == ["stage teacher", "stage labels", "stage esl"]
    assert "3 images of camvid:train:dusk to label" in text and text.count("seconds a step") == 1
    assert f"not checked: it takes {tmp_path / 'run-labels'}, which is not there yet" in text
    assert not list(tmp_path.glob("run*"))


def test_pseudo_labels_and_methods_must_go_together(camvid, staged, tmp_path):
    with pytest.raises(RecipeError, match=r"data.target.labels: method esl learns from pseudo-labels"):
        train(staged.override("stages={}"), tmp_path / "run")
    with pytest.raises(RecipeError, match="data.target.labels: has no effect with method advent"):
        train(small_recipe(camvid, "advent").override("data.target.labels=labels"), tmp_path / "run")
    with pytest.raises(DataError, match="labels"):
        train(staged.override(f"data.target.labels={tmp_path / 'labels'}"), tmp_path / "run")
    truth = camvid / "camvid" / "trainannot"
    with pytest.raises(DataError, match=r"pseudo_labels.json"):
        train(staged.override(f"data.target.labels={truth}"), tmp_path / "run")
    with pytest.raises(RecipeError, match="--allow-changed changes one run, and the recipe has stages"):
        train(staged, tmp_path / "run", resume=True, allow_changed=["steps"])
    assert not (tmp_path / "run").exists()


# Planning


def test_an_earlier_stages_output_stands_beside_the_last_ones(staged, tmp_path):
    teacher, labels, last = plan(staged, tmp_path / "esl")
    assert [stage.out.name for stage in (teacher, labels, last)] == ["esl-teacher", "esl-labels", "esl"]
    assert (teacher.recipe.method["name"], last.recipe.method["name"]) == ("advent", "esl")
    assert labels.runs == (teacher.out,) and labels.data == "camvid:train:dusk"
    assert last.recipe.data.target.labels == labels.out.absolute()


def test_a_stage_that_no_later_one_needs_is_left_out(staged, tmp_path):
    (only,) = plan(staged.override("data.target.labels=./labels"), tmp_path / "esl")
    assert (only.out, only.recipe.data.target.labels) == (tmp_path / "esl", Path("labels"))
    tree = staged.model_dump(mode="json", exclude_unset=True)
    tree["data"]["target"]["labels"] = "mine"
    with pytest.raises(RecipeError, match=r"stages.esl: data.target.labels: .* itself mine; remove one"):
        parse_recipe(tree, "here")


def test_labels_may_be_of_several_runs_and_a_run_may_start_from_another(camvid, tmp_path):
    second = {"train": {"network": {"weights": "teacher"}, "start": "teacher"}}
    recipe = with_stages(
        camvid,
        {
            "teacher": TEACHER,
            "second": {"train": TEACHER["train"] | second["train"]},
            "labels": {"pseudo-label": {"runs": ["teacher", "second"], "rule": RULE, "data": "camvid:val:day"}},
            "esl": LAST,
        },
    )
    teacher, other, labels, _ = plan(recipe, tmp_path / "esl")
    assert other.recipe.network["weights"] == other.recipe.start == str(teacher.out.absolute())
    assert set(other.takes) == {teacher.out}
    assert labels.runs == (teacher.out, other.out) and labels.data == "camvid:val:day"


def test_labels_of_more_networks_than_the_recipe_names_are_another_recipes(camvid, tmp_path):
    both = LABELS["pseudo-label"] | {"runs": ["teacher", "second"]}
    second = {"train": {"seed": 6, **TEACHER["train"]}}
    stages = {"teacher": TEACHER, "second": second, "labels": {"pseudo-label": both}, "esl": LAST}
    recipe = with_stages(camvid, stages).override("steps=1", "evaluate.data=[]")
    train(recipe, tmp_path / "esl")
    with pytest.raises(RunError, match=r"esl-labels was made by the mean of 2 networks, not of 1; use a new --out"):
        train(recipe.override("labels:runs=[teacher]"), tmp_path / "esl")


def test_the_networks_of_several_stages_are_measured_as_one(camvid, tmp_path, said):
    other = {"train": {"seed": 6, **LAST["train"]}}
    stages = {"teacher": TEACHER, "labels": LABELS, "other": other, "esl": LAST, "mean": mean_of("other", "esl")}
    recipe = with_stages(camvid, stages).override("evaluate.report_images=0")
    out = tmp_path / "esl"
    assert [stage.out.name for stage in plan(recipe, out)] == [
        "esl-teacher", "esl-labels", "esl-other", "esl", "esl-mean.json",
    ]  # fmt: skip
    train(recipe, out)
    (ours,) = read_list(tmp_path / "esl-mean.json")
    (theirs,) = evaluate_runs([tmp_path / "esl-other", out], ["camvid:test:dusk"], recipe.data.root,
                              ensemble="probabilities", precision="32")[0].reports  # fmt: skip
    assert np.array_equal(ours.counts, theirs.counts) and ours.protocol == theirs.protocol
    assert any(line.startswith("camvid:test:dusk  mIoU of the mean ") for line in said)

    said.clear()
    train(recipe, out)
    assert [line.endswith("is there; skipped") for line in said].count(True) == 5
    with pytest.raises(RunError, match="esl-mean.json is of other runs or another mean; use a new --out"):
        train(recipe.override("mean:mean=logits"), out)
    network = runs.product_path(out, "student")
    os.utime(network, ns=(2 * network.stat().st_mtime_ns,) * 2)  # trained on since
    assert [stage.standing() for stage in plan(recipe, out)][-1] == "new"


# --set


def test_a_set_reaches_every_stage_that_has_the_key(staged, tmp_path):
    changed = staged.override("steps=1", "data.source.set=camvid:val:day", "method.width=2", "optim.lr=0.5")
    teacher, _, last = plan(changed, tmp_path / "esl")
    for stage in (teacher, last):
        assert (stage.recipe.steps, stage.recipe.data.source.set) == (1, "camvid:val:day")
        assert (stage.recipe.method["width"], stage.recipe.optim.lr) == (2, 0.5)


def test_a_set_of_one_stage_reaches_that_one_alone(staged, tmp_path):
    changed = staged.override("teacher:steps=1", "labels:rule.floor=0.3", "teacher:method.width=2")
    teacher, labels, last = plan(changed, tmp_path / "esl")
    assert (teacher.recipe.steps, last.recipe.steps) == (1, 2)
    assert (teacher.recipe.method["width"], last.recipe.method["width"]) == (2, 4)
    assert labels.labelling.rule["floor"] == 0.3


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("techer:steps=1", r"the recipe has no stage 'techer'; did you mean 'teacher'\?"),
        ("method={name: minent}", r"--set method: stages differ in it; write STAGE:method=.*teacher, labels, esl"),
        ("method.name=minent", "stages differ in it; write STAGE:method.name=minent"),
        ("data.target.labels=labels", r"labels is a stage; write ./labels for the folder"),
        ("teacher:stepz=1", r"stages.teacher: unknown key 'stepz'; did you mean 'steps'\?"),
        ("labels:rule.flor=1", r"stages.labels: rule entropy-median has no setting 'flor'; did you mean 'floor'\?"),
        ("labels:run=[teacher]", r"stages.labels: unknown key 'run'; did you mean 'runs'\?"),
    ],
)
def test_a_set_that_fits_no_stage_is_explained(staged, setting, message):
    with pytest.raises(RecipeError, match=message):
        staged.override(setting)


def test_one_stage_has_no_stage_to_set(recipe):
    with pytest.raises(RecipeError, match="--set teacher:steps: the recipe has no stages"):
        recipe.override("teacher:steps=1")


# Mistakes


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ({"day": {"paint": {"runs": ["a"]}}}, r"stages.day: unknown stage kind \(paint\); a stage is {train"),
        ({"day": {}}, r"stages.day: unknown stage kind \(nothing\)"),
        ({"day": {"train": {}, "pseudo-label": {}}}, r"unknown stage kind \(train, pseudo-label\)"),
        ({"a/b": {"train": {}}}, "cannot be part of a folder's name"),
        ({"teacher": TEACHER, "labels": LABELS}, "stages.labels: is the last and trains nothing"),
        ({"labels": LABELS, "teacher": TEACHER, "esl": LAST}, "runs: no stage 'teacher' trains before it"),
        ({"teacher": TEACHER, "esl": LAST, "labels": LABELS}, "target.labels: stage labels does not come before it"),
        ({"labels": TEACHER, "esl": LAST}, "data.target.labels: labels is no pseudo-label stage"),
        ({"teacher": {"train": {"stages": {}}}}, "stages: only a file can name blocks, and no stage has stages"),
        ({"teacher": {"train": {"use": ["methods/advent"]}}}, "use: only a file can name blocks"),
        ({"teacher": {"train": {"method": {"name": "advent"}}}}, "stages.teacher: method advent needs"),
        ({"teacher": {"train": 3}}, "stages"),
        ({"teacher": TEACHER, "mean": mean_of("teacher")}, "mean: runs: .*at least 2"),
        ({"teacher": TEACHER, "mean": mean_of("teacher", "x")}, "no stage 'x' trains before it"),
        ({"teacher": TEACHER, "mean": {"evaluate": {"runs": ["teacher", "x"]}}}, "stages.mean: mean: missing"),
        ({"teacher": TEACHER, "mean": {"evaluate": {"runs": ["teacher", "teacher"], "mean": "logits"}}},
         "stages.mean: runs: teacher is named twice; name it once"),
        ({"teacher": TEACHER, "labels": {"pseudo-label": {"runs": 2 * ["teacher"], "rule": RULE}}, "esl": LAST},
         "stages.labels: runs: teacher is named twice; name it once"),
        ({"teacher": TEACHER, "labels": {"pseudo-label": LABELS["pseudo-label"] | {"resize": [0, 8]}}, "esl": LAST},
         "labels: resize"),
    ],
)  # fmt: skip
def test_stages_that_cannot_be_are_one_line_that_says_which(camvid, stages, message):
    with pytest.raises(RecipeError, match=message) as error:
        with_stages(camvid, stages)
    assert "\n" not in str(error.value)


def test_the_old_key_is_refused_with_the_new_one(staged):
    tree = yaml.safe_load(staged.override("stages={}").to_yaml()) | {"pseudo_labels": {"recipe": "advent_streets"}}
    with pytest.raises(RecipeError, match=r"pseudo_labels: is a stage now; write stages: {teacher: {train"):
        parse_recipe(tree, "here")


def test_a_stages_expectation_is_the_last_ones(staged, camvid):
    tree = staged.model_dump(mode="json", exclude_unset=True)
    recipe = parse_recipe(tree | {"expect": {"data": "x", "miou": 1.0, "note": "y"}}, "here")
    teacher, _, last = stages_of(recipe)
    assert teacher.recipe.expect is None and last.recipe.expect.miou == 1.0
