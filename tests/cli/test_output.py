"""Output that cannot be written: a training goes on, and what was only printed has failed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import OF_TORCH_ALONE, RECIPE, write_camvid
from segda.cli.main import main
from segda.ground.output import Enduring, enduring
from segda.run import read_log, step_of
from segda.training import loop


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    write_camvid(folder / "data")
    (folder / "mine.yaml").write_text(RECIPE)
    return folder


def training(out: str) -> list[str]:
    settings = ["steps=3", "evaluate.data=[]", "log_every=1", f"network={OF_TORCH_ALONE}"]
    words = ["train", "mine.yaml", "--root", "data", "--out", out, "--overwrite"]
    return [*words, *(word for one in settings for word in ("--set", one))]


def went_to_the_end(run: Path) -> bool:
    return step_of(run) == 3 and [line["step"] for line in read_log(run)] == [1, 2, 3]


def full():
    return os.open("/dev/full", os.O_WRONLY)


def without_reader():
    reads, writes = os.pipe()
    os.close(reads)
    return writes


@pytest.mark.parametrize("lost", [full, without_reader])
@pytest.mark.parametrize("both", [False, True], ids=["out", "both"])
def test_a_training_goes_on_without_its_output(place, forks, tmp_path, lost, both):
    number = lost()
    with (tmp_path / "err").open("w") as err:
        fork = forks.start(
            *("-m", "segda", *training(lost.__name__)), cwd=place, out=number, err=number if both else err.fileno()
        )
        code = fork.wait(300)
    os.close(number)
    assert code == 0 and went_to_the_end(place / lost.__name__)
    if not both:
        (line,) = (tmp_path / "err").read_text().splitlines()
        why = {full: "No space left on device", without_reader: "its reader has gone"}[lost]
        assert line == (
            f"segda: warning: standard output cannot be written any more ({why}); the work goes on without it"
        )


def test_a_training_whose_output_is_closed_goes_on(place):
    """In earnest: Python itself finds the numbers closed, which the next files that are opened would get."""
    code = subprocess.call(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-m", "segda", *training("closed")],
        cwd=place, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert code == 0 and went_to_the_end(place / "closed")


def test_an_interrupted_training_says_so_by_its_exit_code_alone(place, monkeypatch):
    monkeypatch.chdir(place)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "run_steps", interrupt)
    monkeypatch.setattr(sys, "stdout", Broken())
    monkeypatch.setattr(sys, "stderr", Broken())
    assert main(training("interrupted")) == 130


class Broken(io.TextIOBase):
    """A stream whose reader has gone after the first so many writings."""

    encoding = "utf-8"

    def __init__(self, before: int = 0, error: OSError | None = None):
        self.before, self.error, self.held = before, error or BrokenPipeError(32, "Broken pipe"), ""

    def write(self, text: str) -> int:
        if len(self.held) >= self.before:
            raise self.error
        self.held += text
        return len(text)


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"], ["list", "methods"]])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, ""),
        (OSError(28, "No space left on device"), "segda: cannot write standard output: No space left on device\n"),
    ],
)
def test_what_is_only_printed_has_failed(words, error, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Broken(error=error))
    assert main(words) == 1
    assert capsys.readouterr().err == said


def test_output_that_was_closed_from_the_start_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(["list", "methods"]) == 1
    assert capsys.readouterr().err == "segda: cannot write standard output: it is closed\n"
    assert main(["lisst"]) == 2


def test_what_came_before_is_there_and_the_fault_is_told_once():
    told = []
    stream = Enduring(Broken(before=5), told.append)
    for part in ("first", "second", "third"):
        assert stream.write(part) == len(part)
    stream.flush()
    assert stream._stream.held == "first" and told == ["its reader has gone"]
    assert not stream.isatty()


def test_what_cannot_be_encoded_is_written_out(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    with enduring(pytest.fail):
        print("± 0.5 \udce4 plain")
    assert bytes_.getvalue() == b"\\xb1 0.5 \\udce4 plain\n"


def test_afterwards_the_streams_are_what_they_were():
    before = sys.stdout, sys.stderr
    with pytest.raises(ZeroDivisionError), enduring(pytest.fail):
        raise ZeroDivisionError
    assert (sys.stdout, sys.stderr) == before
