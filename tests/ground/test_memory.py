"""Want of memory, as the libraries say it, is one line with ways out."""

from __future__ import annotations

import errno
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from segda.cli.main import main
from segda.errors import RunFailure, WeightsError
from segda.ground.memory import lacks_memory

HUGE = 1 << 60


def _device():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def _system():
    raise OSError(errno.ENOMEM, "Cannot allocate memory")


def _unread():
    try:
        torch.empty(HUGE)
    except RuntimeError as error:
        raise WeightsError("network.pth: not readable; fetch it again") from error


WANTS: dict[str, Callable] = {
    "torch": lambda: torch.empty(HUGE),
    "numpy": lambda: np.empty(HUGE, np.uint8),
    "python": lambda: bytearray(HUGE),
    "opencv": lambda: cv2.copyMakeBorder(np.zeros((9, 9, 4)), 0, 1 << 30, 0, 1 << 16, cv2.BORDER_CONSTANT),
    "device": _device,
    "system": _system,
    "taken for another": _unread,
}


@pytest.mark.parametrize("want", WANTS.values(), ids=WANTS)
def test_each_library_is_understood(want):
    with pytest.raises(Exception) as raised:
        want()
    assert lacks_memory(raised.value)


@pytest.mark.parametrize(
    "other",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory lane"),
        WeightsError("out of memory.pth: no such file"),
    ],
)
def test_nothing_else_is(other):
    assert not lacks_memory(other)


@pytest.mark.parametrize("want", WANTS.values(), ids=WANTS)
@pytest.mark.parametrize(
    ("words", "place", "ways"),
    [
        (
            ["train", "ebda_streets", "--out", "made"],
            "segda.training.running.train_run",
            ["activation_checkpointing=true", "data.batch", "data.target.augment.crop"],
        ),
        (
            ["predict", "run", "image.png", "--out", "made"],
            "segda.reporting.predictions.predict_images",
            ["--precision bf16", "evaluate.window", "evaluate.resize"],
        ),
    ],
)
def test_a_command_says_what_asks_for_less(words, place, ways, want, tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place, lambda *_: want())
    assert main(words) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("segda: out of memory; ") and all(way in line for way in ways)


def test_a_failure_that_knows_more_says_it_itself(monkeypatch, capsys):
    def fail(*_):
        raise RunFailure("a step of 4 scenes does not fit") from torch.OutOfMemoryError()

    monkeypatch.setattr("segda.training.running.train_run", fail)
    assert main(["train", "ebda_streets", "--out", "made"]) == 1
    assert capsys.readouterr().err == "segda: a step of 4 scenes does not fit\n"
