"""Two at once in one folder: the second writer is refused in a line, readers are not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from conftest import small_recipe
from resuming import at, same
from segda import run as runs
from segda.cli.main import main
from segda.commands.compare import compare
from segda.commands.convert import convert
from segda.commands.draw import draw
from segda.commands.evaluate import evaluate
from segda.commands.make_fog import make_fog
from segda.commands.predict import predict
from segda.commands.prepare import prepare
from segda.commands.pseudo_label import pseudo_label
from segda.commands.report import report
from segda.commands.train import train
from segda.distributed import group
from segda.errors import RunError, RunFailure
from segda.evaluation import runs as evaluated
from segda.ground.alone import alone_in
from segda.recipes.recipe import Recipe
from segda.training import running
from segda.training.running import TRAINS
from small_run import DUSK, SPACE, write_run

RULE = {"name": "fixed", "level": 0.0}


@pytest.fixture
def plain(camvid: Path) -> Recipe:
    return small_recipe(camvid).override("save_every=1", "evaluate.data=[]", "evaluate.report_images=0", "steps=2")


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("given", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("begun", [False, True])
def test_a_second_training_is_refused_and_changes_nothing(plain, tmp_path, given, begun):
    run = tmp_path / "run"
    if begun:
        train(plain, run)
    with alone_in(run, TRAINS):
        before = files(run)
        with pytest.raises(RunError, match=rf"another process trains in .*run \(pid {os.getpid()} on .*\); wait"):
            train(plain.override("seed=9"), run, **given)
        assert files(run) == before
    assert run.exists() == begun


def test_while_a_run_is_trained_nobody_else_may(plain, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(plain.to_yaml())
    codes = []
    with at(1, lambda: codes.append(main(["train", "mine.yaml", "--out", "run", "--overwrite"]))):
        train(plain, Path("run"))
    assert codes == [2]
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "another" in line)
    assert line.startswith(f"segda: another process trains in run (pid {os.getpid()} on ")
    train(plain, Path("alone"))
    assert same(Path("run"), Path("alone")) and not list(Path("run").glob(".*"))


def test_a_killed_training_keeps_nobody_out(plain, tmp_path):
    child = os.fork()
    if child == 0:
        with at(1, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            train(plain, tmp_path / "run")
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert (tmp_path / "run" / ".lock").exists()
    train(plain, tmp_path / "run", resume=True)
    train(plain, tmp_path / "alone")
    assert same(tmp_path / "run", tmp_path / "alone") and not list((tmp_path / "run").glob(".*"))


def test_what_torchrun_starts_again_waits_for_those_before(plain, tmp_path, monkeypatch):
    waits = []

    def held(folders, told, patience):
        waits.append(patience)
        return alone_in(*folders, told)

    monkeypatch.setattr(running, "first_alone_in", held)
    for told in ("", "held"):
        monkeypatch.setattr(group, "remembered", lambda key, told=told: told if key.endswith("is held") else "")
        train(plain, tmp_path / f"run{told}")
    assert waits == [0, running.PATIENCE]


def test_readers_are_not_kept_out(camvid, tmp_path):
    run = write_run(tmp_path / "run")
    with alone_in(run, TRAINS):
        evaluate(run, [DUSK], camvid)
        compare([run])
        report(run, root=camvid)
        predict(run, [camvid / "camvid/test"], tmp_path / "out")
        pseudo_label([run], DUSK, RULE, tmp_path / "labels", root=camvid)
        convert(run, tmp_path / "theirs.pth", target="daformer")
    assert (run / "reports").is_dir() and (run / "report.html").is_file()
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_numbers_of_a_run_that_was_replaced_meanwhile_are_not_written_into_the_new_one(camvid, tmp_path, monkeypatch):
    run, real = write_run(tmp_path / "run"), evaluated.evaluate_network

    def replaced(settings):
        def measured(*given):
            runs.begin(run, runs.load_recipe_of(run).override(settings))
            return real(*given)

        return measured

    monkeypatch.setattr(evaluated, "evaluate_network", replaced("seed=9"))
    with pytest.raises(RunFailure, match="run: another run was begun there while this one was measured; measure it"):
        evaluate(run, [DUSK], camvid)
    assert not (run / "reports").exists()
    run = write_run(tmp_path / "again")
    monkeypatch.setattr(evaluated, "evaluate_network", replaced("log_every=9"))
    evaluate(run, [DUSK], camvid)
    assert (run / "reports").is_dir()


def test_other_writers_are_alone_in_their_folders_too(camvid, tmp_path):
    run = write_run(tmp_path / "run")
    draw("streets:val", tmp_path / "drawn", 1, "32x64")
    convert(run, tmp_path / "theirs.pth", target="daformer")
    recipe = runs.load_recipe_of(run)
    writers = {
        "to predict": lambda out: predict(run, [camvid / "camvid/test"], out),
        "to label": lambda out: pseudo_label([run], DUSK, RULE, out, root=camvid),
        "to prepare": lambda out: prepare("camvid:test", camvid, out, space=SPACE.name),
        "to draw": lambda out: draw("streets:val", out, 1, "32x64"),
        "to make fog": lambda out: make_fog(tmp_path / "drawn", [0.01], out, workers=0),
        "to convert": lambda out: convert(tmp_path / "theirs.pth", out, "daformer", recipe=recipe),
    }
    for name, write in writers.items():
        with alone_in(tmp_path / name, "another process writes to {folder}"):
            with pytest.raises(RunError, match=f"another process writes to .*{name} .pid"):
                write(tmp_path / name)
            assert [path.name for path in (tmp_path / name).iterdir()] == [".lock"]
        write(tmp_path / name)
        assert not list((tmp_path / name).glob(".lock")) and list((tmp_path / name).iterdir())
