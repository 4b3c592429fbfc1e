"""Predictions as files against what the authors' `--format-only` wrote (golden/README.md)."""

import io

import numpy as np
import pytest
from PIL import Image

from golden import Golden
from segda.data.labels.label_ids import label_ids, label_palette
from segda.data.labels.spaces import SPACES
from segda.reporting.pictures import palette_png

GOLDEN = Golden("daformer_ebda")
SPACE = SPACES["cityscapes-19"]


@pytest.fixture(scope="module")
def recorded():
    return GOLDEN.json("labels.json")


@pytest.mark.parametrize("ids", ["label", "train"])
def test_a_label_map_has_the_authors_values_and_colours(recorded, ids):
    theirs = recorded[f"format_only_to_label_id_{ids == 'label'}"]
    predicted = np.array(recorded["format_only_input"], np.uint8)
    if ids == "label":
        content = palette_png(label_ids(SPACE)[predicted], label_palette())
    else:
        content = palette_png(predicted, SPACE.palette())
    with Image.open(io.BytesIO(content)) as ours:
        assert ours.mode == theirs["mode"]
        assert np.array(ours).tolist() == theirs["pixels"]
        colours = theirs["palette_first_40_rgb"]
        assert ours.getpalette()[: len(colours)] == colours
        assert not any(ours.getpalette()[len(colours) :])


def test_label_ids_are_the_recorded_ones_of_each_class(recorded):
    assert SPACE.classes == tuple(recorded["classes"])
    assert label_ids(SPACE)[: len(SPACE.classes)].tolist() == recorded["train_to_label_id"]


def test_the_colour_of_every_label_is_the_recorded_one(recorded):
    for label in recorded["cityscapes_labels"]:
        # The licence plate, -1, is the last row of the palette.
        assert label_palette()[label["id"] if label["id"] >= 0 else 34].tolist() == label["color"], label["name"]
