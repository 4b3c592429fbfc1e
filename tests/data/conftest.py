"""The first of the small CamVid's day images, its label and their data set, for tests that damage them."""

from __future__ import annotations

import pytest

from conftest import FRAMES
from segda.data.sets.datasets import open_data


@pytest.fixture
def frame(camvid):
    return camvid / "camvid" / "train" / f"{FRAMES['train'][0]}.png"


@pytest.fixture
def label(frame):
    return frame.parent.parent / "trainannot" / frame.name


@pytest.fixture
def data(camvid):
    return open_data("camvid:train:day", camvid)
