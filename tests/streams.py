"""What tests of the training stream share: a small stream, broken images, images that kill who reads them."""

from __future__ import annotations

import faulthandler
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from torch import Tensor

from segda.data.sets import files as file_sets
from segda.data.sets import own as own_sets
from segda.data.sets.datasets import open_data
from segda.data.stream.settings import Augment
from segda.data.stream.stream import SOURCE, Stream

CROP = Augment(resize=None, crop=(32, 32), max_class_share=None, flip=0.5)
SEED = 3


def pairs_of(root: Path) -> Stream:
    source, target = open_data("camvid:train:day", root), open_data("camvid:train:dusk", root)
    return Stream(source, target, SEED, CROP, CROP)


def path_of(pairs: Stream, n: int, domain: int = SOURCE) -> Path:
    """The image of draw n."""
    data = pairs.source if domain == SOURCE else pairs.target
    return data.image_path(data.names.index(pairs[n][domain].names[0]))


def cut_off(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    return whole


def make_deadly(
    path: Path, marks: Path, monkeypatch: pytest.MonkeyPatch, times: int = 100, number: int = signal.SIGKILL
) -> Path:
    """From now on each reading of an image by another process than this one is its last, so many times; the folder
    `marks`, which is returned, has a file for each.
    """
    here = os.getpid()
    marks.mkdir()

    def read(plain: Callable[..., Tensor], asked: Path, *how: bool):
        if asked == path and os.getpid() != here and len(list(marks.iterdir())) < times:
            (marks / f"{os.getpid()}").touch()
            faulthandler.disable()  # pytest's would tell of it
            os.kill(os.getpid(), number)
        return plain(asked, *how)

    for module, name in ((file_sets, "read_image"), (own_sets, "read_photo")):
        monkeypatch.setattr(module, name, partial(read, getattr(module, name)))
    return marks
