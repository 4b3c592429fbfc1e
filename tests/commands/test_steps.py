"""`--step` and `--weights`: which of a run's networks a command takes, and what it says when that is not there."""

from __future__ import annotations

import shutil
from html import unescape
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from conftest import METHOD_SETTINGS, small_recipe, write_camvid
from segda import run as runs
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.convert import convert
from segda.commands.evaluate import evaluate
from segda.commands.predict import predict
from segda.commands.pseudo_label import pseudo_label
from segda.commands.report import report
from segda.commands.train import train
from segda.data.labels.pseudo_labels import read_summary
from segda.errors import RecipeError, RunError, WeightsError
from segda.evaluation.checkpoints import evaluate_snapshots
from segda.evaluation.ensemble import evaluate_ensemble
from segda.evaluation.metrics import read_reports
from segda.evaluation.snapshots import read_snapshots
from segda.networks import NETWORKS
from segda.recipes.build import build
from small_run import DUSK, SPACE, write_run

WHICH = [("student", 2), ("teacher", 2), ("student", 4), ("teacher", 4), ("teacher", None)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_camvid(tmp_path_factory.mktemp("data"))


@pytest.fixture
def run(tmp_path):
    """A run of 4 steps with snapshots of step 2, all four networks different."""
    run = write_run(tmp_path / "run", teacher=True)
    recipe = runs.load_recipe_of(run)
    for seed, weights in enumerate(get_args(runs.Which), 20):
        torch.manual_seed(seed)
        network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
        for buffer in network.decoder.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.1, 1)
        runs.save_network(runs.snapshot_path(run, 2, weights), network, recipe.network, 2)
    return run


def alone(run: Path, weights: str, step: int | None) -> Path:
    """A run whose student is that network: what commands make of it without being told which."""
    other = write_run(run.with_name("alone"))
    file = runs.snapshot_path(run, 2, weights) if step == 2 else runs.product_path(run, weights)
    shutil.copy(file, runs.product_path(other, "student"))
    return other


@pytest.mark.parametrize(("weights", "step"), WHICH)
def test_each_command_takes_the_network_that_is_named(root, run, tmp_path, weights, step):
    other, image = alone(run, weights, step), root / "camvid" / "test" / "0001TP_101.png"
    (ours,), (theirs,) = evaluate(run, [DUSK], root, [weights], step=step), evaluate(other, [DUSK], root, ["student"])
    assert (ours.counts == theirs.counts).all()
    assert (ours.protocol.weights, ours.protocol.step) == (weights, step or 4)
    for place, out, asked in ((run, "ours", {"weights": weights, "step": step}), (other, "theirs", {})):
        predict(place, [image], tmp_path / out, entropy=True, **asked)
        pseudo_label([place], DUSK, "fixed", tmp_path / f"{out}-labels", root=root, **asked)
        convert(place, tmp_path / f"{out}.pth", target="daformer", **asked)
    for folder in ("", "-labels"):
        pictures = sorted(path.name for path in (tmp_path / f"ours{folder}").glob("*.png"))
        assert pictures
        for name in pictures:
            paths = (tmp_path / f"{out}{folder}" / name for out in ("ours", "theirs"))
            assert len({path.read_bytes() for path in paths}) == 1
    (made_by,) = read_summary(tmp_path / "ours-labels")["runs"]
    assert (made_by["weights"], made_by["step"]) == (weights, step or 4)
    ours, theirs = (torch.load(tmp_path / f"{out}.pth", weights_only=True) for out in ("ours", "theirs"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_number_of_another_step_does_not_become_the_runs_own(root, run):
    evaluate(run, [DUSK], root)
    before = {path: path.read_bytes() for path in (run / "reports").iterdir()}
    evaluate(run, [DUSK], root, step=2)
    assert {path: path.read_bytes() for path in (run / "reports").iterdir()} == before


def test_an_ensemble_is_of_the_networks_after_that_step(root, run, tmp_path):
    other, same = alone(run, "student", 2), shutil.copytree(run, tmp_path / "same")
    ours = evaluate_ensemble([run, same], [DUSK], "logits", root=root, weights=["student"], step=2)
    (theirs,) = evaluate(other, [DUSK], root, ["student"])
    assert (ours[0].counts == theirs.counts).all()
    assert [member.protocol.step for member in ours[0].protocol.members] == [2, 2]


def test_the_teachers_snapshots_are_measured_beside_the_students(root, run, capsys):
    evaluate(run, [DUSK], root)
    students, teachers = (evaluate_snapshots(run, [DUSK], root, weights=weights)[0] for weights in get_args(runs.Which))
    (snapshot,) = evaluate(run, [DUSK], root, ["teacher"], step=2)
    assert (teachers.by_step[2].report.counts == snapshot.counts).all()
    assert [(each.weights, sorted(each.by_step)) for each in read_snapshots(run)] == [
        ("student", [2, 4]), ("teacher", [2, 4]),
    ]  # fmt: skip
    assert [report.protocol.weights for report in read_reports(run)] == ["student", "teacher"]
    arguments = ["evaluate", str(run), "--data", DUSK, "--root", str(root), "--all-checkpoints"]
    for more, steps in ([], 2), (["--all"], 4):
        capsys.readouterr()
        assert main([*arguments, *more]) == 0
        out = capsys.readouterr().out
        assert len([line for line in out.splitlines() if line.startswith(("│    2 ", "│    4 "))]) == steps
        assert ("not shown: the teacher's snapshots (--all)" in out) == (not more)
    assert students.by_step[2].report.miou != teachers.by_step[2].report.miou
    page = unescape(report(run, root=root, weights="teacher", step=2).read_text())
    assert "prediction (teacher after step 2)" in page and "mIoU of the teacher's snapshots" in page
    both = compare([run], step=2)
    assert [report.protocol.step for cells in both.reports.values() for report in cells.values()] == [2, 2]
    (key,) = compare([run], weights="teacher").reports
    assert key == (DUSK, "teacher")


@pytest.mark.parametrize(("weights", "step", "said"), [
    ("student", 3, r"run has no student of step 3; it has: 2, 4 \(the last\) \(recipe key keep_every\)"),
    ("teacher", 1, r"run has no teacher of step 1; it has: 2, 4 \(the last\)"),
])  # fmt: skip
def test_a_step_that_is_not_there_is_answered_with_those_that_are(root, run, tmp_path, weights, step, said):
    image = root / "camvid" / "test" / "0001TP_101.png"
    for action in (
        lambda asked: predict(run, [image], tmp_path / "out", **asked),
        lambda asked: pseudo_label([run], DUSK, "fixed", tmp_path / "out", root=root, **asked),
        lambda asked: convert(run, tmp_path / "out.pth", target="daformer", **asked),
        lambda asked: evaluate(run, [DUSK], root, [asked["weights"]], step=asked["step"]),
        lambda asked: runs.load_network(run, **asked),
    ):
        with pytest.raises(WeightsError, match=said) as caught:
            action({"weights": weights, "step": step})
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_is_not_there_and_steps_without_a_meaning_are_refused(root, run, tmp_path):
    bare = write_run(tmp_path / "bare")
    with pytest.raises(WeightsError, match=r"bare has no teacher \(teacher.safetensors\); it has: student"):
        predict(bare, [root / "camvid" / "test" / "0001TP_101.png"], tmp_path / "out", weights="teacher", step=2)
    with pytest.raises(WeightsError, match=r"bare has no student of step 2; it has: 4 \(the last\)"):
        evaluate(bare, [DUSK], root, step=2)
    with pytest.raises(RecipeError, match="--step 2 is of a run of ours"):
        convert(tmp_path / "theirs.pth", tmp_path / "out", step=2)
    with pytest.raises(RecipeError, match="--step 2: .*network.safetensors is a file"):
        convert(run / "network.safetensors", tmp_path / "out.pth", target="daformer", step=2)
    evaluate(run, [DUSK], root)
    with pytest.raises(RunError, match="run has no report of step 2, but of none; measure it first: .*checkpoints"):
        compare([run], step=2)
    evaluate(bare, [DUSK], root)
    with pytest.raises(RunError, match="none of these runs has a report of a teacher"):
        compare([bare], weights="teacher")


def test_the_command_line_says_which(root, run, capsys):
    arguments = ["evaluate", str(run), "--data", DUSK, "--root", str(root), "--weights", "teacher"]
    assert main([*arguments, "--step", "2"]) == 0
    assert "camvid:train:dusk after step 2," in " ".join(capsys.readouterr().out.split())
    assert main([*arguments, "--step", "2", "--all-checkpoints"]) == 2
    assert "--step 2 is one of --all-checkpoints" in capsys.readouterr().err
    assert main([*arguments, "--all-checkpoints"]) == 0
    assert read_snapshots(run)[0].weights == "teacher"


def test_training_keeps_the_teacher_too_and_forgets_what_it_will_write_again(camvid, tmp_path, said):
    recipe = small_recipe(camvid).override("evaluate.data=[]", "keep_every=2", "save_every=1")
    recipe = recipe.model_copy(update={"method": {"name": "dacs", **METHOD_SETTINGS["dacs"]}})
    train(recipe, tmp_path / "plain")
    kept = sorted(path.name for path in (tmp_path / "plain" / "snapshots").iterdir())
    assert kept == [f"{name}-000000{step}.safetensors" for name in ("network", "teacher") for step in (2, 4)]
    for weights in get_args(runs.Which):
        last = load_file(runs.product_path(tmp_path / "plain", weights))
        snapshot = load_file(runs.snapshot_path(tmp_path / "plain", 4, weights))
        assert all(torch.equal(last[name], snapshot[name]) for name in last)
        assert runs.load_network(tmp_path / "plain", weights, step=2).training is False
    runs.forget_after(tmp_path / "plain", 3, None)
    assert [list(runs.snapshots(tmp_path / "plain", weights)) for weights in get_args(runs.Which)] == [[2], [2]]
    rooms = []
    for every in (0, 2):
        said.clear()
        train(recipe.override(f"keep_every={every}"), tmp_path / "none", check=True)
        (line,) = [line for line in said if "the run folder: up to" in line]
        rooms.append(float(line.split()[-2]))
    sizes = (
        sum((tmp_path / "plain" / file).stat().st_size for file in ("network.safetensors", "teacher.safetensors")) / 1e6
    )
    assert rooms[1] - rooms[0] == pytest.approx(2 * sizes, rel=0.1)
