"""A training of two processes that are killed, stopped, or asked wrongly."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

import processes
from conftest import OF_TORCH_ALONE, small_recipe, write_camvid
from forks import begun
from resuming import log_of, same
from segda import run as runs
from under_torchrun import MISTAKES, NAN_OF

pytestmark = pytest.mark.long

TESTS = Path(__file__).parents[1]
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(TESTS.parent / "src"), str(TESTS), *sys.path]),
}
STEPS = 10


def torchrun(*arguments: object, restarts: int = 0) -> list[str]:
    """The words after `python`."""
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*several, "--max-restarts", str(restarts), *map(str, arguments)]


def said(text: str) -> list[str]:
    return [line.removeprefix("segda: ") for line in text.splitlines() if line.startswith("segda: ")]


def left_behind(place: Path) -> list[str]:
    """Commands of processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == place:
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended, or is another user's
            continue
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with data, a copy of them, a copy that is broken, and a recipe."""
    place = tmp_path_factory.mktemp("torchrun").resolve()
    write_camvid(place / "data")
    for name in ("copy", "broken"):
        shutil.copytree(place / "data", place / name)
    for image in (place / "broken" / "camvid" / "train").iterdir():
        image.write_bytes(image.read_bytes()[:200])
    recipe = small_recipe(place / "data", "ebda", level="auto", level_statistic="mean", level_momentum=0.9).override(
        "data.root=data", "data.batch=1", "accumulate=2", f"steps={STEPS}", "log_every=1", "save_every=2", "keep=9",
        "keep_every=5", "evaluate.every=6", "evaluate.report_images=0", "compare_every=5", "patience=1800",
        f"network={OF_TORCH_ALONE}",
    )  # fmt: skip
    (place / "mine.yaml").write_text(recipe.to_yaml())
    return place


@pytest.fixture(scope="module")
def ends(place) -> dict[str, list]:
    """Exit code and standard error of each process, for each mistake; the whole run is there after it, too."""
    words = [sys.executable, *torchrun(TESTS / "under_torchrun.py", "mistakes")]
    done = processes.run(words, cwd=place, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "terminate called" not in done.stderr
    both = [json.loads((place / f"ends-{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0].keys() == MISTAKES.keys() and both[0]["whole"] == [0, ""]
    return {name: [*zip(both[0][name], both[1][name], strict=True)] for name in MISTAKES}


def once(ends, name: str, code: int, by: int = 0) -> str:
    """The line that one of the processes said and nobody else; both end with the code."""
    codes, texts = ends[name]
    assert codes == (code, code)
    assert texts[1 - by] == ""
    (line,) = texts[by].splitlines()
    return line.removeprefix("segda: ")


def test_a_mistake_is_said_once_and_leaves_nothing(place, ends):
    assert once(ends, "recipe", 2).startswith("no recipe at mime.yaml")
    assert "unknown key 'lrr'; did you mean 'lr'?" in once(ends, "key", 2)
    assert "nowhere" in once(ends, "data", 2)
    assert not (place / "none").exists()
    assert "whole already holds a run; use --resume" in once(ends, "folder", 2)


def test_a_run_goes_on_with_as_many_processes_or_when_that_is_allowed(place, ends):
    line = once(ends, "number", 2)
    assert "three was begun by 3 processes" in line and "these are 2" in line
    assert line.endswith("--resume --allow-changed processes")
    codes, (warning, silence) = ends["number allowed"]
    assert codes == (0, 0) and silence == ""
    (line,) = warning.splitlines()
    assert line.startswith("segda: warning: last bits may differ, since the checkpoint was made elsewhere: ")
    assert same(place / "three", place / "whole")
    (resumed,) = json.loads((place / "three" / "environment.json").read_text())["resumed"]
    assert resumed["step"] == 4 and resumed["recipe"] == {"processes": [3, 2]}


def test_a_broken_image_of_the_second_process_is_named_by_it(place, ends):
    line = once(ends, "image", 2, by=1)
    assert "broken/camvid/train/" in line and not (place / "image" / "last.pt").exists()


def test_a_loss_that_is_not_finite_in_one_process_is_said_with_its_files_and_changes_no_weight(place, ends):
    line = once(ends, "loss", 1, by=1)
    files = json.loads((place / NAN_OF).read_text())
    assert len(files) == 2 and all(name in line for name in files)
    assert line.startswith("step 2: source is not finite for ") and "the last checkpoint is kept" in line
    assert runs.load_checkpoint(place / "loss")["t"] == 2


def test_weights_that_differ_are_named(place, ends):
    assert once(ends, "start", 1).startswith("step 0: student.classifiers.main.1.bias")
    line = once(ends, "teacher", 1)
    assert line.startswith(
        "step 4: parts.teacher.network.classifiers.main.1.bias of process 1 is not what it is in process 0"
    )
    assert runs.load_checkpoint(place / "teacher")["t"] == 2  # what is not alike is not saved


def test_a_full_disk_of_the_first_process_stops_both(place, ends):
    assert "cannot write disk/last.pt: File too large; free space" in once(ends, "disk", 1)
    assert runs.load_checkpoint(place / "disk")["t"] == 2 and not list((place / "disk").rglob(".*"))


PLAN = [
    (0, "os.remove", "run/last.pt", 1),  # of an older run, which --overwrite is just removing
    (1, "call", "segda.distributed.sync:average_gradients", 4),  # the first waits for it
    (0, "os.rename", ".last.pt", 1),  # a checkpoint that is written, but not in its place
    (0, "call", "segda.training.running:write_report", 1),
]
"""One a start, the last when the run has come to its end."""


def test_killed_processes_are_started_again_and_end_as_if_nothing_had_happened(place, ends, forks):
    out = place / "run"
    shutil.copytree(place / "loss", out)
    arguments = ["die", json.dumps(PLAN), "train", "mine.yaml", "--out", "run", "--overwrite"]
    done = forks.run(*torchrun(TESTS / "under_torchrun.py", *arguments, restarts=len(PLAN)), cwd=place)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("exitcode: -9") == len(PLAN)
    assert same(out, place / "whole")
    assert not list(out.rglob(".*"))
    assert runs.snapshots(out).keys() == runs.snapshots(place / "whole").keys() == {5, 10}
    for step, snapshot in runs.snapshots(out).items():
        assert snapshot.read_bytes() == runs.snapshot_path(place / "whole", step).read_bytes()
    assert (out / "report.html").is_file()
    resumed = json.loads((out / "environment.json").read_text())["resumed"]
    # Nothing was resumed of what the second start began; the fourth stood where the third had begun to write.
    assert [one["step"] for one in resumed] == [2, 2, 10]
    assert left_behind(place) == []


def test_all_processes_stop_after_the_same_step_and_go_on(place, ends, forks):
    """Started in earnest the first time, as forks when they go on."""
    arguments = ["-m", "segda", "train", "mine.yaml", "--out", "stopped"]
    for number, name, everyone in ((signal.SIGTERM, "SIGTERM", False), (signal.SIGINT, "Ctrl-C", True)):
        heard, out = os.pipe()
        with open(heard) as lines, (place / "err.txt").open("w+") as file:
            with begun(forks if everyone else None, torchrun(*arguments), place, out, file, ENVIRONMENT) as process:
                os.close(out)
                for line in lines:
                    if line.startswith("step ") and "camvid" not in line:
                        if everyone:  # also to those to whom torchrun hands it on
                            for worker in forks.of(process.pid):
                                os.kill(worker, number)
                        os.kill(process.pid, number)
                        break
                process.wait(timeout=processes.HANGS)
            file.seek(0)
            err = file.read()
        assert process.returncode != 0, err  # of torchrun, whatever the processes' is
        (line,) = said(err)
        done = runs.load_checkpoint(place / "stopped")["t"]
        assert line.startswith(f"stopped by {name}; stopped is saved after step {done}; go on with: by torchrun as ")
        assert "exitcode: -9" not in err and "terminate called" not in err
        words = shlex.split(line.partition("as before, ")[2])
        assert words == ["python", "-m", "segda", "train", "mine.yaml", "--out", "stopped", "--resume"]
        arguments = words[1:]
        assert left_behind(place) == []
    assert 0 < done < STEPS
    done = forks.run(*torchrun(*arguments), cwd=place)
    assert done.returncode == 0, done.stderr
    assert same(place / "stopped", place / "whole")
    assert [line["step"] for line in log_of(place / "stopped")][-1] == STEPS
