"""A run that is asked to stop, or that can write no longer: what it leaves, and what it says."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import processes
from conftest import small_recipe, write_camvid
from forks import begun
from resuming import at, same
from segda import run as runs
from segda.cli.main import main
from segda.commands.train import train
from segda.distributed import group
from segda.errors import Interrupted, RunError, RunFailure
from segda.recipes.recipe import Recipe
from segda.training import assembly, loop
from segda.training.stopping import ASKED, Stopping

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plain(camvid: Path) -> Recipe:
    """Four steps, saved after each, without scores."""
    return small_recipe(camvid).override("save_every=1", "evaluate.data=[]")


# Asked to stop


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [
        (signal.SIGTERM, 0, "SIGTERM"),
        (signal.SIGINT, 130, "Ctrl-C"),
        (signal.SIGQUIT, 131, r"Ctrl-\\"),
        (signal.SIGHUP, 0, "SIGHUP"),
        (signal.SIGUSR1, 0, "SIGUSR1"),
    ],
)
def test_a_run_that_is_asked_to_stop_saves_the_step_it_is_in(camvid, tmp_path, number, code, name):
    recipe = small_recipe(camvid).override("save_every=100", "log_every=2", "evaluate.data=[]", "steps=6")
    train(recipe, tmp_path / "whole")
    handlers = [signal.getsignal(one) for one in ASKED]
    with (
        pytest.raises(Interrupted, match=f"stopped by {name}; .*run is saved after step 4") as stopped,
        at(4, lambda: os.kill(os.getpid(), number)),
    ):
        train(recipe, tmp_path / "run")
    assert stopped.value.exit_code == code and stopped.value.saved
    assert handlers == [signal.getsignal(one) for one in ASKED]
    train(recipe, tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


def test_a_signal_that_is_ignored_stays_so(plain, tmp_path):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with at(2, lambda: os.kill(os.getpid(), signal.SIGHUP)):
            train(plain, tmp_path / "run")
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert runs.step_of(tmp_path / "run") == 4


def test_a_second_ctrl_c_does_not_wait_and_a_second_sigterm_does(plain, tmp_path, monkeypatch):
    save, times = runs.save_checkpoint, []
    for signals, step in (((signal.SIGTERM, signal.SIGTERM), 1), ((signal.SIGINT, signal.SIGINT), None)):

        def saved(run, state, keep, signals=signals):
            times.append(state["t"])
            for number in signals:
                os.kill(os.getpid(), number)
            save(run, state, keep)

        monkeypatch.setattr(runs, "save_checkpoint", saved)
        out = tmp_path / f"run{step}"
        with pytest.raises(Interrupted) as stopped:
            train(plain, out)
        assert stopped.value.saved == (step is not None)
        assert (out / "last.pt").exists() == (step is not None) and not list(out.glob(".*"))
    assert times == [1, 1]


def test_a_run_that_is_asked_to_stop_while_it_is_scored_does_not_end_the_scoring(camvid, tmp_path, monkeypatch):
    recipe = small_recipe(camvid).override("evaluate.every=2", "evaluate.report_images=0")
    monkeypatch.setattr(loop, "evaluate_network", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted, match="saved after step 2"):
        train(recipe, tmp_path / "run")
    assert [line["step"] for line in runs.read_log(tmp_path / "run")] == [1, 2]


@pytest.fixture
def written(camvid: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    recipe = small_recipe(camvid).override("save_every=1", "evaluate.data=[]", "evaluate.report_images=0")
    Path("mine.yaml").write_text(recipe.to_yaml())
    return tmp_path


@pytest.mark.parametrize(
    ("given", "when", "told"),
    [
        ([], "step", "train mine.yaml --out 'a run' --resume"),
        (["--overwrite"], "step", "train mine.yaml --out 'a run' --resume"),
        (["--overwrite"], "start", "train mine.yaml --out 'a run' --overwrite"),
        (["--resume"], "step", "train mine.yaml --out 'a run' --resume"),
    ],
)
def test_the_command_line_says_how_to_go_on(written, monkeypatch, capsys, given, when, told):
    owner, name = (assembly.Training, "step") if when == "step" else (assembly, "method_class")
    original = getattr(owner, name)

    def ask(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, ask)
        assert main(["train", "mine.yaml", "--out", "a run", *given]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segda: stopped by SIGTERM; ")
    words = shlex.split(line.partition("go on with: ")[2])
    words = words[words.index("train") :]
    assert shlex.join(words) == told
    assert main(words) == 0
    assert runs.step_of(Path("a run")) == 4


def test_ctrl_c_reaches_the_whole_group_and_the_printed_command_goes_on(written, forks):
    """Started in earnest the first time, as a fork when it goes on."""
    Path("long.yaml").write_text(Recipe.model_validate(_tree(written)).to_yaml())
    words = ["-m", "segda", "train", "long.yaml", "--out", "run"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    for number, code, by in ((signal.SIGINT, 130, None), (signal.SIGTERM, 0, forks)):
        heard, out = os.pipe()
        with open(heard) as lines, Path("err.txt").open("w+") as file:
            with begun(by, words, Path.cwd(), out, file, environment) as process:
                os.close(out)
                for line in lines:
                    if line.startswith("step "):
                        os.killpg(process.pid, number)
                        break
                lines.read()
                process.wait(processes.HANGS)
            file.seek(0)
            err = file.read()
        assert process.returncode == code, err
        assert "Traceback" not in err
        last = err.splitlines()[-1]
        assert last.startswith("segda: stopped by "), err
        command = shlex.split(last.partition("go on with: ")[2])
        assert command[:4] == ["python", "-m", "segda", "train"] and "--resume" in command
        words = command[1:]
    assert runs.load_checkpoint(Path("run"))["t"] >= 2


def _tree(place: Path) -> dict:
    recipe = runs.load_recipe(place / "mine.yaml").override("steps=100000", "save_every=1000", "data.workers=1")
    return recipe.model_dump(mode="json")


# Disk and folder


def one_line(capsys, *arguments: str) -> str:
    """The line that a failing command says; its exit code must be 1."""
    capsys.readouterr()
    assert main(list(arguments)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 32 megabytes of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = os.geteuid() == 0 and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=32m", "none", place], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_stops_the_run_and_the_last_checkpoint_stays_valid(written, small_disk, capsys):
    arguments = ["train", "mine.yaml", "--out", str(small_disk / "run")]
    recipe = runs.load_recipe("mine.yaml")
    train(recipe, written / "whole")
    size = (written / "whole" / "last.pt").stat().st_size
    for room in (0, size // 2):  # not a byte, half a checkpoint

        def fill(room=room):
            free = shutil.disk_usage(small_disk).free
            (small_disk / "filler").write_bytes(bytes(free - room))

        with at(2, fill):
            line = one_line(capsys, *arguments, "--overwrite")
        assert "cannot write" in line and "No space left on device; free space" in line
        assert runs.load_checkpoint(small_disk / "run")["t"] in (1, 2)
        assert not list((small_disk / "run").glob(".*"))
        (small_disk / "filler").unlink()
        assert main([*arguments, "--resume"]) == 0
        assert same(small_disk / "run", written / "whole")


def test_a_disk_that_can_be_read_alone_stops_the_run(written, small_disk, capsys):
    def protect():
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    with at(2, protect):
        line = one_line(capsys, "train", "mine.yaml", "--out", str(small_disk / "run"))
    assert "Read-only file system" in line
    assert runs.load_checkpoint(small_disk / "run")["t"] == 1


def test_a_folder_that_is_removed_stops_the_run_and_is_not_made_again(written, capsys):
    for every, what in (
        (1, "run was removed while it was written to"),
        (9, "cannot write run/log.jsonl: No such file"),
    ):
        settings = ["--set", f"save_every={every}"]
        with at(2, lambda: shutil.rmtree("run")):
            line = one_line(capsys, "train", "mine.yaml", "--out", "run", *settings)
        assert what in line
        assert not Path("run").exists()


@pytest.fixture
def unprivileged():
    """A folder of one who is not root, and to be that one."""
    if os.geteuid() != 0:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 65534, 65534)
        os.seteuid(65534)
        try:
            yield Path(folder)
        finally:
            os.seteuid(0)


def test_a_folder_that_may_not_be_written_to_any_more_stops_the_run(unprivileged):
    recipe = small_recipe(write_camvid(unprivileged / "data")).override("save_every=1", "evaluate.data=[]")
    train(recipe, unprivileged / "whole")
    run = unprivileged / "run"
    with (
        pytest.raises(RunFailure, match="cannot write .*: Permission denied; free space or choose another folder"),
        at(2, lambda: run.chmod(0o500)),
    ):
        train(recipe, run)
    assert runs.load_checkpoint(run)["t"] == 1
    # Before a run has begun, the same is a mistake of whoever chose the folder.
    with pytest.raises(RunError) as refused:
        train(recipe, run / "inner")
    assert refused.value.exit_code == 2
    run.chmod(0o700)
    train(recipe, run, resume=True)
    assert same(run, unprivileged / "whole")


def test_a_loss_that_is_not_finite_exits_with_1(written, capsys):
    settings = ["optim.lr=1e30", "optim.warmup=1", "optim.warmup_ratio=0", "steps=20"]
    line = one_line(capsys, "train", "mine.yaml", "--out", "run", *(f"--set={setting}" for setting in settings))
    assert "not finite" in line and "the last checkpoint is kept" in line


def test_a_signal_that_comes_while_processes_ask_each_other_is_seen_the_next_time(monkeypatch):
    total = group.all_reduce_sum

    def slow(counts):
        found = total(counts)
        os.kill(os.getpid(), signal.SIGTERM)
        return found

    with Stopping() as stopping, pytest.raises(KeyboardInterrupt), stopping.later():
        with monkeypatch.context() as patch:
            patch.setattr(group, "all_reduce_sum", slow)
            assert not loop.asked(stopping)
        assert loop.asked(stopping) and stopping.asked == signal.SIGTERM


def test_a_signal_that_is_noted_too_late_for_anybody_to_look_is_not_forgotten():
    with Stopping() as stopping:
        with pytest.raises(KeyboardInterrupt), stopping.later():
            os.kill(os.getpid(), signal.SIGTERM)  # while loaders end, say
        with pytest.raises(RunError, match="its own"), stopping.later():
            raise RunError("its own")
