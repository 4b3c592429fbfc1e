"""A run that is killed and resumed, what its checkpoint is, and what of its recipe may change."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from conftest import small_recipe
from resuming import at, content, log_of, same
from segda import run as runs
from segda.commands.train import train
from segda.errors import Interrupted, RecipeError, RunError, WeightsError
from segda.recipes.diff import FREE
from segda.recipes.recipe import Recipe
from segda.training import assembly, checkpoint, running
from small_run import build_run, write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(camvid: Path) -> Recipe:
    """Four steps, saved after each, without scores."""
    return small_recipe(camvid).override("save_every=1", "evaluate.data=[]")


# Killed


def test_a_run_that_is_killed_at_any_moment_ends_as_if_nothing_had_happened(forks):
    kills = 5  # of each method in each precision
    done = forks.run(ROOT / "benchmarks" / "kills.py", kills, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    outcomes = json.loads(done.stdout.splitlines()[-1])
    assert {one["case"].split(":")[0] for one in outcomes} == {"source_only", "advent", "esl", "ebda"}
    assert {one["case"].split(":")[1] for one in outcomes} == {"32", "bf16"}
    for one in outcomes:
        assert one["kills"] == kills and one["runs"] >= 1, one
        assert one["equal"] == one["runs"], one
    assert sum(one["in_files"] for one in outcomes) >= 5


class Killed(BaseException):
    """In place of a signal: ends the run where it is, and cannot be caught by mistake."""


def test_a_run_that_died_while_it_was_scored_is_scored_again(camvid, tmp_path, monkeypatch):
    recipe = small_recipe(camvid).override("save_every=1", "evaluate.every=2", "evaluate.report_images=0", "steps=3")
    append = runs.append_log

    def die_of(number):
        """At the n-th score, before it is written."""
        left = [None] * number

        def append_or_die(run, line):
            if "evaluation" in line:
                left.pop()
                if not left:
                    raise Killed
            append(run, line)

        monkeypatch.setattr(runs, "append_log", append_or_die)

    monkeypatch.setattr(running, "write_report", lambda *_, **__: None)
    train(recipe, tmp_path / "whole")

    for number, steps in ((1, [1, 2]), (2, [1, 2, 2, 3])):
        die_of(number)
        with pytest.raises(Killed):
            train(recipe, tmp_path / "run", resume=True)
        assert [line["step"] for line in runs.read_log(tmp_path / "run")] == steps
    monkeypatch.setattr(runs, "append_log", append)
    for _ in range(2):  # the second time there is nothing left to do but the end's scores
        train(recipe, tmp_path / "run", resume=True)
        assert same(tmp_path / "run", tmp_path / "whole")


def test_a_line_of_the_log_is_a_mean_also_over_steps_of_two_lives(camvid, tmp_path):
    recipe = small_recipe(camvid, "ebda").override("log_every=4", "save_every=3", "evaluate.data=[]", "steps=5")
    train(recipe, tmp_path / "whole")

    def die():
        raise Killed

    with pytest.raises(Killed), at(4, die):
        train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert [line["step"] for line in log_of(tmp_path / "run")] == [4, 5]
    assert same(tmp_path / "run", tmp_path / "whole")


def test_resume_begins_where_there_is_nothing_yet_and_destroys_nothing(plain, tmp_path, said):
    train(plain, tmp_path / "run", resume=True)
    assert any(line.startswith("nothing to resume") for line in said)
    # Killed before its first checkpoint, and while its first file was written.
    (tmp_path / "early").mkdir()
    (tmp_path / "early" / ".recipe.yaml.7.partial").write_text("se")
    train(plain, tmp_path / "early", resume=True)
    assert same(tmp_path / "early", tmp_path / "run")
    assert not list((tmp_path / "early").glob(".*"))
    network = write_run(tmp_path / "converted") / "network.safetensors"
    before = network.read_bytes()
    with pytest.raises(RunError, match="holds a network but no checkpoint to resume from"):
        train(plain, tmp_path / "converted", resume=True)
    assert network.read_bytes() == before


# What a checkpoint is


def test_a_checkpoint_holds_no_constant_but_its_hash_which_must_be_that_of_the_start(camvid, tmp_path):
    recipe = small_recipe(camvid, "ebda").override("save_every=1", "evaluate.data=[]", "steps=2")
    train(recipe, tmp_path / "run")
    state = runs.load_checkpoint(tmp_path / "run")
    assert not [name for name in state["method"] if name.startswith("parts.feature_distance")]
    assert [name for name in state["method"] if name.startswith("parts.teacher")]
    training = assembly.assemble(recipe, camvid, None)
    start = checkpoint.digest(training.method.parts.feature_distance.network)
    assert start == checkpoint.digest(training.method.student)
    training.method.student.decoder.classify.bias.data[0] += 1
    assert start != checkpoint.digest(training.method.student)
    checkpoint.restore(training, state, tmp_path)
    assert checkpoint.digest(training.method.parts.feature_distance.network) == start

    state["constants"] = {name: "0" * 64 for name in state["constants"]}
    runs.save_checkpoint(tmp_path / "run", state, keep=0)
    with pytest.raises(WeightsError, match="network.weights .scratch. now gives other weights than then"):
        train(recipe, tmp_path / "run", resume=True)


def test_the_scale_of_gradients_and_the_steps_until_it_grows_go_on_where_they_were(plain, camvid):
    """As an accelerator's float16 has it; the processor's trainings have none."""
    before, after = (assembly.assemble(plain, camvid, None) for _ in range(2))
    before.scaler, after.scaler = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (8.0, 4096.0))
    before.scaler.load_state_dict(before.scaler.state_dict() | {"_growth_tracker": 7})
    checkpoint.restore(after, checkpoint.state_of(before), camvid)
    assert after.scaler.state_dict() == before.scaler.state_dict()
    assert after.scaler.get_scale() == 8


def test_older_checkpoints_are_kept_and_one_can_take_the_place_of_a_damaged_last_one(plain, tmp_path):
    recipe, run = plain.override("keep=2"), tmp_path / "run"
    train(recipe, run)
    assert list(runs.checkpoints(run)) == [2, 3, 4]
    assert runs.checkpoint_path(run, 4).samefile(run / "last.pt")
    before = content(run)
    (run / "last.pt").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="mv .*checkpoint-0000003.pt .*last.pt, or train anew") as refused:
        train(recipe, run, resume=True)
    subprocess.run(shlex.split(str(refused.value).partition("; ")[2].partition(", or")[0]), check=True)
    assert runs.load_checkpoint(run)["t"] == 3
    train(recipe, run, resume=True)
    assert content(run) == before and list(runs.checkpoints(run)) == [2, 4]
    train(recipe.override("keep=0"), run, overwrite=True)
    assert not runs.checkpoints(run)


def test_a_file_system_without_second_names_keeps_copies(plain, tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refused)
    train(plain.override("keep=1"), tmp_path / "run")
    assert list(runs.checkpoints(tmp_path / "run")) == [3, 4]
    assert runs.checkpoint_path(tmp_path / "run", 4).read_bytes() == (tmp_path / "run" / "last.pt").read_bytes()


def test_going_back_forgets_what_came_after(plain, tmp_path):
    recipe, run = plain.override("keep=9", "keep_every=1"), tmp_path / "run"
    train(recipe, run)
    shutil.move(runs.checkpoint_path(run, 1), run / "last.pt")
    with pytest.raises(Interrupted), at(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        train(recipe, run, resume=True)
    assert list(runs.checkpoints(run)) == [2] and list(runs.snapshots(run)) == [1, 2]


def test_the_size_that_check_says_is_the_size_of_the_file(camvid, tmp_path, said):
    recipe = small_recipe(camvid, "ebda").override("evaluate.data=[]", "keep=3")
    train(recipe, tmp_path / "run", check=True)
    train(recipe, tmp_path / "run")
    (line,) = (line for line in said if line.startswith("checkpoint: "))
    bytes_ = (tmp_path / "run" / "last.pt").stat().st_size
    assert line.startswith(f"checkpoint: {bytes_ / 1e6:.2f} MB, 3 older ones kept; the run folder: up to ")


def test_a_checkpoint_of_another_format_is_told_apart_from_a_damaged_one(plain, tmp_path):
    train(plain, tmp_path / "run")
    state = runs.load_checkpoint(tmp_path / "run")
    torch.save({key: value for key, value in state.items() if key != "format"}, tmp_path / "run" / "last.pt")
    with pytest.raises(WeightsError, match="written by another version of segda"):
        train(plain, tmp_path / "run", resume=True)


def test_the_same_network_is_the_same_file_each_time(tmp_path):
    files = {build_run(tmp_path / str(number)).joinpath("network.safetensors").read_bytes() for number in range(9)}
    (content_,) = files
    end = 8 + int.from_bytes(content_[:8], "little")
    assert end % 8 == 0
    metadata = json.loads(content_[8:end])["__metadata__"]
    assert metadata["step"] == "4"
    assert list(metadata) == ["class_names", "facts_sha256", "format", "network", "step", "tensors_sha256"]


# A changed recipe, other code


def test_changed_keys_are_refused_with_their_difference_unless_they_are_named(plain, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(Interrupted), at(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        train(plain, run)
    changed = plain.override("optim.lr=5e-4", "method.photometric=null", "log_every=3")
    with pytest.raises(RunError) as refused:
        train(changed, run, resume=True, allow_changed=["optim.lr"])
    message = str(refused.value)
    assert "method.photometric: {" in message and "} then, None now" in message
    assert "optim.lr" not in message and "log_every" not in message
    assert message.endswith("--resume --allow-changed method.photometric")
    with pytest.raises(RecipeError, match="--allow-changed optim.lrr: no such key; did you mean 'optim.lr'"):
        train(changed, run, resume=True, allow_changed=["optim.lrr"])
    with pytest.raises(RecipeError, match="no effect without --resume"):
        train(changed, run, allow_changed=["optim"])
    with pytest.raises(RecipeError, match="--resume goes on, --overwrite begins anew"):
        train(changed, run, resume=True, overwrite=True)

    train(changed, run, resume=True, allow_changed=["optim", "method.photometric"])
    lines = log_of(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    # Step 4 of 4, warmed up: base rate times 1 / 4. The optimiser's own state would say twice as much.
    assert lines[-1]["lr/student/encoder"] == pytest.approx(5e-4 / 4)
    assert runs.load_recipe_of(run).optim.lr == 5e-4
    (resumed,) = json.loads((run / "environment.json").read_text())["resumed"]
    assert resumed["step"] == 2 and resumed["recipe"]["optim.lr"] == [1e-3, 5e-4]


def test_keys_that_have_no_part_in_what_is_learnt_may_change(plain, camvid, tmp_path):
    train(plain, tmp_path / "whole")
    with pytest.raises(Interrupted), at(2, lambda: os.kill(os.getpid(), signal.SIGTERM)):
        train(plain, tmp_path / "run")
    shutil.move(camvid, tmp_path / "moved")
    changes = {
        "data.root": str(tmp_path / "moved"), "data.workers": 1, "log_every": 2, "save_every": 3, "keep_every": 2,
        "keep": 1, "evaluate.every": 3, "evaluate.data": "[]", "evaluate.report_images": 1, "paper": "{title: A}",
        "expect": "{data: camvid, miou: 1, note: none}", "data.on_bad_image": "skip",
        "activation_checkpointing": "true", "compare_every": 7, "patience": 60, "logger": "null",
    }  # fmt: skip
    assert changes.keys() == set(FREE)
    changed = plain.override(*(f"{key}={value}" for key, value in changes.items()))
    train(changed, tmp_path / "run", resume=True)
    assert content(tmp_path / "run") == content(tmp_path / "whole")
    assert runs.load_recipe_of(tmp_path / "run").data.root == tmp_path / "moved"


def test_a_run_cannot_go_on_beyond_its_end(plain, tmp_path):
    train(plain, tmp_path / "run")
    with pytest.raises(RunError, match="last.pt is of step 4, but the recipe ends at 3"):
        train(plain.override("steps=3"), tmp_path / "run", resume=True, allow_changed=["steps"])
    train(plain.override("steps=5"), tmp_path / "run", resume=True, allow_changed=["steps"])
    assert runs.step_of(tmp_path / "run") == 5


def test_a_run_that_is_done_does_not_take_on_what_it_never_learnt_by(plain, tmp_path):
    run = tmp_path / "run"
    train(plain, run)
    before = content(run)
    for allowed in ([], ["optim"]):
        with pytest.raises(
            RunError, match=r"another recipe \(optim.lr: 0.001 then, 0.0005 now\) and has done its last step"
        ) as refusal:
            train(plain.override("optim.lr=5e-4"), run, resume=True, allow_changed=allowed)
        assert "--resume --set steps=N --allow-changed steps --allow-changed optim.lr" in str(refusal.value)
    assert content(run) == before and runs.load_recipe_of(run).optim.lr == 1e-3
    measured = plain.override("evaluate.flip=true", "log_every=3")
    train(measured, run, resume=True, allow_changed=["evaluate"])
    assert runs.load_recipe_of(run).evaluate.flip
    train(plain.override("optim.lr=5e-4", "steps=5"), run, resume=True, allow_changed=["optim", "steps", "evaluate"])
    assert runs.step_of(run) == 5


def test_other_code_is_one_line_of_warning(plain, tmp_path, monkeypatch, warned):
    train(plain, tmp_path / "run")
    train(plain, tmp_path / "run", resume=True)
    assert not warned
    monkeypatch.setattr(checkpoint, "_source", lambda: "deadbeef")
    train(plain, tmp_path / "run", resume=True)
    (line,) = warned
    assert "segda: " in line and "(deadbeef)' now" in line


def test_processes_that_find_other_checkpoints_are_told_to_share_a_folder(tmp_path):
    running._refuse_others(tmp_path, [4, 4, 4])
    running._refuse_others(tmp_path, [None, None])
    with pytest.raises(RunError, match="process 0 finds one of step 4 there, process 2 no checkpoint; give all"):
        running._refuse_others(tmp_path, [4, 4, None])
    with pytest.raises(RunError, match="process 0 finds no checkpoint there, process 1 one of step 6"):
        running._refuse_others(tmp_path, [None, 6])
