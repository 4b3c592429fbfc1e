"""Training end to end on a small CamVid: what a run folder holds, resuming, and what is refused."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from conftest import small_recipe
from resuming import at, content, log_of
from segda import run as runs
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.errors import DataError, RecipeError, RunError, RunFailure, WeightsError
from segda.ground.hardware import leave_cores
from segda.methods import METHODS
from segda.training import running
from small_run import write_run


def weights_of(run) -> dict[str, torch.Tensor]:
    return runs.read_tensors(run / "network.safetensors")


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_folder_holds_all_that_is_promised(camvid, tmp_path):
    run = tmp_path / "run"
    train(small_recipe(camvid, "ebda").override("evaluate.every=2"), run)
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml", "environment.json", "data.json", "log.jsonl", "last.pt", "network.safetensors",
        "teacher.safetensors", "report.html", "reports",
    }  # fmt: skip
    assert [path.name for path in (run / "reports").iterdir()] == ["camvid-test-dusk.json"]
    lines = list(runs.read_log(run))
    steps = [line for line in lines if "seconds" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4]
    assert all(0 <= line["waiting"] <= 1 for line in steps)
    assert {"source", "feature_distance", "mix", "confident", "balance", "lr/student/encoder"} <= steps[0].keys()
    for domain in ("source", "target", "mixed"):
        assert 0 <= steps[0][f"H/{domain}/q05"] <= steps[0][f"H/{domain}/q50"] <= steps[0][f"H/{domain}/q95"]
        assert sum(steps[0][f"histogram/{domain}"]) == pytest.approx(1, abs=1e-3)
    scores = [line for line in lines if "evaluation" in line]
    assert [line["step"] for line in scores] == [2, 4]
    assert {"student", "teacher"} <= scores[0].keys()
    facts = json.loads((run / "environment.json").read_text())
    assert facts["target_labels_read"] is False and facts["start"] and facts["packages"]["torch"]
    network = runs.load_network(run)
    assert network.infer(torch.rand(1, 3, 40, 50)).shape == (1, 11, 40, 50)


def test_log_lines_are_means_of_their_steps_also_across_an_evaluation(camvid, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "write_report", lambda run: run / "report.html")
    recipe = small_recipe(camvid).override("evaluate.every=3")
    train(recipe, tmp_path / "each")
    train(recipe.override("log_every=2"), tmp_path / "pairs")
    each, pairs = (
        [line["source"] for line in runs.read_log(tmp_path / run) if "source" in line] for run in ("each", "pairs")
    )
    assert pairs == pytest.approx([(each[0] + each[1]) / 2, (each[2] + each[3]) / 2])


def test_the_words_of_a_log_line_are_explained_once_before_they_are_used(camvid, tmp_path, said):
    recipe = small_recipe(camvid, "dacs").override("evaluate.data=[]", "method.begin=2")
    train(recipe, tmp_path / "run")
    lines = [line for line in said if line.startswith("step ") or ": cross entropy" in line]
    first, one, two, second, three, four = lines
    assert first == "source: cross entropy on source images; H/...: mean entropy of the prediction in nats"
    assert second == (
        "confident: share of target pixels with a confident pseudo-label; mix: cross entropy on mixed images"
    )
    assert [line.partition(" of ")[0] for line in (one, two, three, four)] == [f"step {step}" for step in range(1, 5)]
    assert " mix " not in two and " mix " in three and " confident " in three


@pytest.mark.parametrize("name", METHODS)
def test_a_run_that_was_stopped_and_resumed_ends_with_the_same_weights(camvid, tmp_path, name):
    recipe = small_recipe(camvid, name).override("steps=3", "save_every=2", "evaluate.data=[]")
    if METHODS[name].target_labels == "must":
        labels = tmp_path / "labels"
        pseudo_label([write_run(tmp_path / "run")], recipe.data.target.set, "entropy-median", labels, root=camvid)
        recipe = recipe.override(f"data.target.labels={labels}")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(recipe, whole)

    # A log line after the checkpoint: the run died between two saves.
    with pytest.raises(ZeroDivisionError), at(3, lambda: 1 / 0):
        train(recipe, stopped)
    assert [line["step"] for line in runs.read_log(stopped)] == [1, 2, 3]
    assert runs.load_checkpoint(stopped)["t"] == 2
    train(recipe, stopped, resume=True)
    assert content(stopped) == content(whole)
    assert log_of(stopped) == log_of(whole)


@pytest.mark.parametrize("method", ["ebda", "source_free"])
def test_training_gives_the_same_numbers_when_the_target_has_no_labels(camvid, tmp_path, method):
    recipe = small_recipe(camvid, method).override("steps=2", "evaluate.data=[]")
    train(recipe, tmp_path / "with")
    deleted = 0
    for label in (camvid / "camvid" / "trainannot").glob("0001TP*"):
        label.unlink()
        deleted += 1
    assert deleted == 3
    train(recipe, tmp_path / "without")
    assert same(weights_of(tmp_path / "with"), weights_of(tmp_path / "without"))


def test_the_numbers_do_not_depend_on_the_workers(camvid, tmp_path):
    recipe = small_recipe(camvid, "daformer").override("evaluate.data=[]", "steps=2")
    train(recipe, tmp_path / "none")
    train(recipe.override("data.workers=1"), tmp_path / "one")
    assert same(weights_of(tmp_path / "none"), weights_of(tmp_path / "one"))


def test_loader_processes_get_cores_of_their_own(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    try:
        for workers, threads in ((1, 3), (3, 1), (9, 1)):
            leave_cores(workers)
            assert torch.get_num_threads() == threads
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        torch.set_num_threads(2)
        leave_cores(3)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_check_writes_nothing_and_says_what_a_run_will_take(camvid, tmp_path, said):
    train(small_recipe(camvid), tmp_path / "run", check=True)
    text = "\n".join(said)
    assert "parameters: student" in text and "peak memory" in text and "4 steps: about" in text
    assert "checkpoint: " in text and "the run folder: up to " in text
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_needs_resume_or_overwrite(recipe, tmp_path):
    run = tmp_path / "run"
    recipe = recipe.override("steps=1", "evaluate.data=[]")
    train(recipe, run)
    with pytest.raises(RunError, match="already holds a run; use --resume to go on, --overwrite"):
        train(recipe, run)
    train(recipe.override("steps=2"), run, overwrite=True)
    assert [line["step"] for line in runs.read_log(run)] == [1, 2]
    with pytest.raises(RunError, match="another recipe.*seed: 3 then, 9 now"):
        train(recipe.override("steps=2", "seed=9"), run, resume=True)


def test_a_folder_of_something_else_is_left_alone(recipe, tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    for out in (tmp_path / "letters", tmp_path / "letters" / "dear.txt"):
        with pytest.raises(RunError, match="is not a run of segda"):
            train(recipe, out)
        with pytest.raises(RunError, match="is not a run of segda"):
            train(recipe, out, resume=True)
    assert (tmp_path / "letters" / "dear.txt").read_text() == "dear"


def test_a_recipe_that_cannot_run_leaves_no_folder_behind(camvid, tmp_path):
    recipe = small_recipe(camvid)
    for settings, error in (
        (["data.root=/no/such/folder"], DataError),
        (["data.source.set=camvid:train:noon"], RecipeError),
        (["data.space=camvid-12"], RecipeError),
        (["network.weights=/no/such/file.pth"], WeightsError),
    ):
        with pytest.raises(error):
            train(recipe.override(*settings), tmp_path / "run")
        assert not (tmp_path / "run").exists()
    distance = {"weight": 0.1, "classes": ["car", "tram"], "min_share": 0.5}
    with pytest.raises(RecipeError, match=r"method.feature_distance.classes: no class 'tram'"):
        train(small_recipe(camvid, "daformer", feature_distance=distance), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_output_folder_that_cannot_be_made_is_one_line(recipe, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot write .*choose another folder"):
        train(recipe, tmp_path / "file" / "run")


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(camvid, tmp_path):
    run = tmp_path / "run"
    recipe = small_recipe(camvid).override(
        "save_every=1", "optim.lr=1e30", "optim.warmup=3", "optim.warmup_ratio=0", "steps=20"
    )
    with pytest.raises(RunFailure, match=r"step \d+: .*not finite.*the last checkpoint is kept"):
        train(recipe, run)
    kept = runs.load_checkpoint(run)
    assert kept["t"] >= 1
    assert all(value.isfinite().all() for value in kept["method"].values() if value.is_floating_point())


def test_crops_that_cannot_be_mixed_are_a_mistake_in_the_recipe(camvid, tmp_path):
    recipe = small_recipe(camvid, "dacs").override("data.target.augment.crop=[32, 48]")
    with pytest.raises(RecipeError, match=r"source.augment gives 32x32, data.target.augment 48x32, .* same crop"):
        train(recipe, tmp_path / "run", check=True)


# Checkpoints that cannot be trusted


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harm-was-done",)


@pytest.fixture
def finished(recipe, tmp_path):
    run = tmp_path / "run"
    train(recipe.override("steps=1", "evaluate.data=[]"), run)
    return run


def test_a_pickle_that_would_run_code_is_refused_and_not_run(finished, recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"t": Harmful()}, finished / "last.pt")
    with pytest.raises(WeightsError, match=r"last.pt is no whole checkpoint of segda and was not run"):
        train(recipe.override("steps=1", "evaluate.data=[]"), finished, resume=True)
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_a_truncated_checkpoint_is_refused(finished, recipe, size):
    whole = (finished / "last.pt").read_bytes()
    (finished / "last.pt").write_bytes(whole[:size])
    with pytest.raises(WeightsError, match=r"no whole checkpoint"):
        train(recipe.override("steps=1", "evaluate.data=[]"), finished, resume=True)
    weights = (finished / "network.safetensors").read_bytes()
    (finished / "network.safetensors").write_bytes(weights[:size])
    with pytest.raises(WeightsError, match=r"not a whole safetensors file"):
        runs.load_network(finished)


def test_weights_of_another_architecture_or_class_count_are_refused(finished, camvid, tmp_path):
    for settings, what in (("network.channels=16", "is \\(16, 16"), ("network.encoder=b0", "missing")):
        other = tmp_path / settings
        runs.begin(other, small_recipe(camvid).override(settings))
        shutil.copy(finished / "network.safetensors", other)
        with pytest.raises(WeightsError, match=r"does not fit this network: .*another architecture"):
            runs.load_network(other)
        assert what
    cityscapes = small_recipe(camvid).override(
        "data.source.set=streets:train:day", "data.target.set=streets:train:night"
    )
    runs.begin(tmp_path / "classes", cityscapes)
    shutil.copy(finished / "network.safetensors", tmp_path / "classes")
    with pytest.raises(WeightsError, match=r"is \(11, .*not \(19, .*another number of classes"):
        runs.load_network(tmp_path / "classes")


def test_a_run_without_a_teacher_says_so(finished):
    with pytest.raises(WeightsError, match=r"has no teacher .*it has: student"):
        runs.load_network(finished, "teacher")
    with pytest.raises(RunError, match=r"not a run folder"):
        runs.load_network(finished / "reports")


def test_a_damaged_log_is_noticed_and_a_cut_last_line_is_not(finished):
    with (finished / "log.jsonl").open("a") as log:
        log.write('{"step": 2, "sou')
    assert [line["step"] for line in runs.read_log(finished)] == [1]
    with (finished / "log.jsonl").open("a") as log:
        log.write('\n{"step": 3}\n')
    with pytest.raises(RunError, match=r"line 2 is not JSON"):
        list(runs.read_log(finished))


def test_rare_classes_are_counted_once_and_kept_beside_the_runs(camvid, tmp_path):
    rare = "data.source.rare_class={temperature: 0.01, min_pixels: 10, crop_ratio: 0.5, retries: 2}"
    recipe = small_recipe(camvid).override(rare, "steps=1", "evaluate.data=[]")
    train(recipe, tmp_path / "runs" / "one")
    (kept,) = (tmp_path / "runs" / ".segda").iterdir()
    written = kept.stat().st_mtime_ns
    train(recipe, tmp_path / "runs" / "two")
    assert [path.stat().st_mtime_ns for path in (tmp_path / "runs" / ".segda").iterdir()] == [written]
    train(recipe, tmp_path / "other" / "run", check=True)
    assert not (tmp_path / "other").exists()
