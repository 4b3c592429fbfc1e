"""`segda sweep`: which runs a file makes, what becomes of them when some are there, fail or are interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from conftest import RECIPE, small_recipe, write_camvid
from segda import run as runs
from segda.cli.main import main
from segda.commands.sweep import sweep
from segda.errors import Interrupted, RunError, SegdaError
from segda.recipes.recipe import Recipe
from segda.training import assembly
from segda.training import sweep as runner
from segda.training.sweep import in_its_own_process, plan, script

SEEDS = """
recipe: mine.yaml
runs: all
set: {steps: 1, evaluate.report_images: 0}
axes: {seed: [0, 1]}
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Path:
    """A current folder with data in data/ and a small recipe."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SEGDA_DATA", raising=False)
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return tmp_path


@pytest.fixture
def in_this_process(monkeypatch) -> list[list[str]]:
    """Runs are trained in this process, which is quicker; their words are kept."""
    begun: list[list[str]] = []

    def run(words):
        begun.append(list(words))
        code = main(list(words))
        if code == 130:
            raise KeyboardInterrupt
        return None if code == 0 else f"exit code {code}"

    monkeypatch.setattr(runner, "in_its_own_process", run)
    return begun


# What becomes of the runs


def test_runs_are_trained_compared_and_afterwards_skipped(here, in_this_process, capsys, said):
    write_camvid(here / "data")
    Path("sweep.yaml").write_text(SEEDS)
    assert main(["sweep", "sweep.yaml"]) == 0
    out = capsys.readouterr().out
    assert [words[1:4] for words in in_this_process] == [["mine.yaml", "--out", f"all/seed{seed}"] for seed in (0, 1)]
    assert "run 2 of 2: segda train mine.yaml --out all/seed1 --set steps=1" in out
    assert "n = 2" in out and "seeds 0, 1: student of" in out and "camvid:test:dusk: 3 images" in out

    Path("sweep.yaml").write_text(SEEDS.replace("[0, 1]", "[1, 2]"))
    in_this_process.clear()
    said.clear()
    outcome = sweep("sweep.yaml")
    assert [words[3] for words in in_this_process] == ["all/seed2"]
    assert "run 1 of 2: all/seed1 is there; skipped" in said
    assert outcome.finished == [Path("all/seed1"), Path("all/seed2")] and not outcome.failed
    assert list(script(plan("sweep.yaml"))) == ["# all/seed1 is there", "# all/seed2 is there"]


def test_what_was_interrupted_goes_on_to_the_same_end(here, in_this_process, monkeypatch):
    write_camvid(here / "data")
    Path("sweep.yaml").write_text(SEEDS.replace("steps: 1,", "steps: 3, save_every: 1, evaluate.data: [],"))
    sweep("sweep.yaml", out=Path("whole"))

    last = {"seed0": 2, "seed1": 3}
    save = runs.save_checkpoint

    def interrupted(run, state, keep):
        if state["t"] > last[run.name]:
            raise KeyboardInterrupt
        save(run, state, keep)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sweep("sweep.yaml")
        assert [run.standing() for run in plan("sweep.yaml")] == ["begun", "new"]
        # The next time the first run comes to its end, and the second is interrupted before it has saved anything.
        last |= {"seed0": 3, "seed1": 0}
        in_this_process.clear()
        with pytest.raises(KeyboardInterrupt):
            sweep("sweep.yaml")
        assert in_this_process[0][-1] == "--resume"
    assert [run.standing() for run in plan("sweep.yaml")] == ["finished", "unsaved"]
    in_this_process.clear()
    sweep("sweep.yaml")
    assert [words[-1] for words in in_this_process] == ["--overwrite"]
    for seed in (0, 1):
        ours, theirs = (
            runs.read_tensors(runs.product_path(Path(folder) / f"seed{seed}", "student")) for folder in ("all", "whole")
        )
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_that_fails_stops_no_other(here, in_this_process, capsys):
    write_camvid(here / "data")
    Path("sweep.yaml").write_text("""
    recipe: mine.yaml
    set: {steps: 1, evaluate.report_images: 0}
    axes: {data.target.set: {dusk: "camvid:train:dusk", noon: "camvid:train:noon", day: "camvid:train:day"}}
    """)
    assert main(["sweep", "sweep.yaml"]) == 1
    out, err = capsys.readouterr()
    assert len(in_this_process) == 3
    assert err.splitlines()[-1] == "segda: runs/sweep/noon failed: exit code 2"
    assert "camvid:train:noon" in err.splitlines()[0]
    rows = [line.strip("│ ").split("│")[0].strip() for line in out.splitlines() if line.startswith("│")]
    assert rows == ["camvid:test:dusk (target)", "dusk, n = 1", "day, n = 1"]
    assert "run 2 of 3: runs/sweep/noon failed" in out


def test_a_run_that_was_terminated_is_not_taken_for_finished(here, in_this_process, monkeypatch):
    write_camvid(here / "data")
    Path("sweep.yaml").write_text(SEEDS.replace("steps: 1,", "steps: 2, evaluate.data: [],"))
    step = assembly.Training.step

    def asked(training, batch):
        if training.recipe.seed == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(training, batch)

    with monkeypatch.context() as patch:
        patch.setattr(assembly.Training, "step", asked)
        outcome = sweep("sweep.yaml")
    assert outcome.failed == {Path("all/seed0"): "stopped before its end; call the sweep again"}
    assert outcome.finished == [Path("all/seed1")]
    assert sweep("sweep.yaml").finished == [Path("all/seed0"), Path("all/seed1")]


def test_nothing_is_compared_where_nothing_was_measured(here, in_this_process, capsys):
    write_camvid(here / "data")
    Path("sweep.yaml").write_text(SEEDS.replace("steps: 1", "steps: 1, evaluate.data: []"))
    assert main(["sweep", "sweep.yaml"]) == 0
    assert "mIoU" not in capsys.readouterr().out
    assert [run.standing() for run in plan("sweep.yaml")] == ["finished", "finished"]


def test_stages_are_trained_skipped_and_compared_over_their_seeds(here, in_this_process):
    camvid = write_camvid(here / "data")
    teacher = small_recipe(camvid, "advent")
    rule = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}
    stages = {
        "teacher": {"train": {"method": teacher.method, "evaluate": {"data": []}}},
        "labels": {"pseudo-label": {"runs": ["teacher"], "rule": rule}},
        "esl": {"train": {"data": {"target": {"labels": "labels"}}}},
    }
    esl = small_recipe(camvid, "esl").model_dump(mode="json", exclude_unset=True) | {"stages": stages}
    Path("mine.yaml").write_text(Recipe.model_validate(esl).to_yaml())
    Path("sweep.yaml").write_text(SEEDS)
    outcome = sweep("sweep.yaml")
    assert not outcome.failed and len(in_this_process) == 2
    assert [line.startswith("#") for line in script(plan("sweep.yaml"))] == [True, True]
    assert [run.standing() for run in plan("sweep.yaml")] == ["finished", "finished"]
    (column,) = outcome.comparison().columns
    assert (column.title, column.seeds) == ("seed0 and 1 more", (0, 1))


# Folders that cannot be used


def nothing_starts(monkeypatch, *, lines=SEEDS) -> SegdaError:
    def started(words):
        raise AssertionError("a run began")

    monkeypatch.setattr(runner, "in_its_own_process", started)
    Path("sweep.yaml").write_text(lines)
    with pytest.raises(SegdaError) as caught:
        sweep("sweep.yaml")
    return caught.value


def test_a_folder_with_something_else_is_named_before_anything_starts(monkeypatch):
    Path("all/seed1").mkdir(parents=True)
    Path("all/seed1/thesis.txt").write_text("")
    assert "all/seed1 exists and is not a run of segda" in str(nothing_starts(monkeypatch))


@pytest.mark.parametrize("saved", [True, False])
def test_a_run_of_another_recipe_is_named_before_anything_starts(saved, monkeypatch):
    runs.begin(Path("all/seed1"), plan_of(SEEDS)[1].recipe.override("optim.lr=0.5"))
    if saved:
        Path("all/seed1/last.pt").write_bytes(b"")
    error = str(nothing_starts(monkeypatch))
    assert "all/seed1 was begun with another recipe" in error
    assert "optim.lr: 0.5 then, 0.001 now" in error


def plan_of(text):
    Path("sweep.yaml").write_text(text)
    return plan("sweep.yaml")


def test_data_that_have_moved_make_no_other_recipe():
    (first, _) = plan_of(SEEDS)
    runs.begin(first.out, first.recipe.override("data.root=/elsewhere"))
    assert first.standing() == "unsaved"


def test_a_file_where_the_folder_should_be_is_named(monkeypatch):
    Path("all").write_text("")
    assert "all is a file, so no run can be written to all" in str(nothing_starts(monkeypatch))


def test_two_sweeps_do_not_train_the_same_runs(monkeypatch):
    Path("all/.segda").mkdir(parents=True)
    with Path("all/.segda/sweep.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        error = nothing_starts(monkeypatch)
    assert isinstance(error, RunError) and "all: another sweep is at work there" in str(error)


def test_a_sweep_that_is_killed_ends_as_one_left_alone(forks):
    script = Path(__file__).parents[2] / "benchmarks" / "sweep_kills.py"
    done = forks.run(script, 3, "source_only", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    (outcome,) = json.loads(done.stdout.splitlines()[-1])
    assert outcome["kills"] == 3 and outcome["equal"] == outcome["runs"] >= 2


# Processes


def test_a_run_in_its_own_process_says_why_it_failed(capfd):
    assert in_its_own_process(["--help"]) is None
    assert in_its_own_process(["list", "metods"]).startswith("exit code 2: Invalid value for 'what': 'metods'")
    assert "segda: Invalid value" in capfd.readouterr().err


@pytest.fixture
def program(here, monkeypatch):
    """Puts a program in Python's place."""

    def put(text: str) -> None:
        path = here / "program"
        path.write_text(f"#!{sys.executable}\nimport os, signal, sys, time\n{textwrap.dedent(text)}")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


def test_a_run_that_is_killed_is_a_run_that_failed(program):
    program("print('step 3', file=sys.stderr, flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    assert in_its_own_process(["train"]) == "ended by SIGKILL after: step 3"


@pytest.mark.parametrize("end", ["sys.exit(130)", "signal.signal(2, signal.SIG_DFL); os.kill(os.getpid(), 2)"])
def test_a_run_that_was_interrupted_is_no_run_that_failed(program, end):
    program(end)
    with pytest.raises(KeyboardInterrupt):
        in_its_own_process(["train"])


def test_an_interrupt_that_reached_the_sweep_alone_reaches_the_run(program, monkeypatch, here):
    program("""
    def leave(*_):
        open("left", "w").close()
        sys.exit(130)
    signal.signal(signal.SIGINT, leave)
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)
    """)

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "PATIENCE", 0.01)
    monkeypatch.setattr(runner, "print", interrupt, raising=False)
    with pytest.raises(KeyboardInterrupt):
        in_its_own_process(["train"])
    assert (here / "left").exists()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGUSR1])
def test_a_machines_signal_that_reached_the_sweep_alone_reaches_the_run(program, monkeypatch, asked):
    program(f"""
    def leave(*_):
        print("saved", file=sys.stderr, flush=True)
        sys.exit(0)
    signal.signal({int(asked)}, leave)
    print("begun", file=sys.stderr, flush=True)
    time.sleep(60)
    """)
    said = []

    def hear(line, **_):
        said.append(line.strip())
        if said == ["begun"]:
            os.kill(os.getpid(), asked)

    monkeypatch.setattr(runner, "print", hear, raising=False)
    with pytest.raises(Interrupted, match=f"the sweep was stopped by {asked.name}") as stopped:
        in_its_own_process(["train"])
    assert (said, stopped.value.exit_code) == (["begun", "saved"], 0)


def test_a_sweep_that_a_machine_stopped_says_how_to_go_on(monkeypatch, capsys):
    def stopped(words):
        raise Interrupted("the sweep was stopped by SIGTERM", 0, True)

    monkeypatch.setattr(runner, "in_its_own_process", stopped)
    Path("sweep.yaml").write_text(SEEDS)
    assert main(["sweep", "sweep.yaml"]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segda: the sweep was stopped by SIGTERM; go on with: ")
    assert line.endswith("segda sweep sweep.yaml")


def test_an_interrupt_ends_the_sweep(monkeypatch, capsys):
    begun = []

    def interrupted(words):
        begun.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "in_its_own_process", interrupted)
    Path("sweep.yaml").write_text(SEEDS)
    assert main(["sweep", "sweep.yaml"]) == 130
    assert len(begun) == 1
    assert "sweep when called again" in capsys.readouterr().err
