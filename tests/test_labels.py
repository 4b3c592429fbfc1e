"""Label spaces and labellings: facts of the benchmarks, worked by hand."""

import numpy as np
import pytest

from segda.data.datasets import DATASETS
from segda.data.labels import LABELLINGS, SPACES, UNKNOWN, space_named
from segda.errors import RecipeError
from segda.scene import IGNORE

CITYSCAPES = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes' id -> train id; its other ids up to 33 are not evaluated."""

NEVER_A_CLASS = {
    "unlabelled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "parking",
    "rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer",
}  # fmt: skip
"""What files may hold and no benchmark evaluates."""


def test_cityscapes_ids_become_the_benchmarks_train_ids():
    table = SPACES["cityscapes-19"].lookup(LABELLINGS["cityscapes"])
    assert {id: int(table[id]) for id in range(34) if table[id] != IGNORE} == CITYSCAPES


def test_train_ids_of_cityscapes_stay_what_they_are():
    table = SPACES["cityscapes-19"].lookup(LABELLINGS["cityscapes-train"])
    assert table[:19].tolist() == list(range(19))


def test_camvids_eleven_ids_stay_and_the_twelfth_is_ignored():
    table = SPACES["camvid-11"].lookup(LABELLINGS["camvid"])
    assert table[:12].tolist() == [*range(11), IGNORE]


@pytest.mark.parametrize(("labelling", "first"), [("camvid", 12), ("cityscapes", 34), ("cityscapes-train", 19)])
def test_ids_without_a_name_are_unknown_and_255_is_ignored(labelling, first):
    for space in SPACES.values():
        table = space.lookup(LABELLINGS[labelling])
        assert (table[first:255] == UNKNOWN).all()
        assert (table[:first] != UNKNOWN).all()
        assert table[255] == IGNORE


def test_a_name_means_the_same_class_in_another_space():
    # CamVid calls a sidewalk "pavement": a name that a space lacks is ignored in it, not guessed.
    table = SPACES["cityscapes-19"].lookup(LABELLINGS["camvid"])
    assert table[:12].tolist() == [10, 2, 5, 0, 255, 255, 255, 4, 13, 255, 255, 255]


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_every_name_of_a_labelling_is_a_class_of_some_space_or_never_one(labelling):
    classes = {name for space in SPACES.values() for name in space.classes}
    assert not classes & NEVER_A_CLASS
    assert set(LABELLINGS[labelling].values()) <= classes | NEVER_A_CLASS
    assert all(0 <= id < UNKNOWN for id in LABELLINGS[labelling])


@pytest.mark.parametrize("name", DATASETS)
def test_every_labelling_of_a_data_set_names_each_class_of_its_space_once(name):
    row = DATASETS[name]
    assert row.labels
    for _, labelling in row.labels:
        names = list(LABELLINGS[labelling].values())
        assert [names.count(known) for known in space_named(row.space).classes] == [1] * len(SPACES[row.space].classes)


@pytest.mark.parametrize("name", SPACES)
def test_classes_have_colours_of_their_own_and_the_rest_is_black(name):
    palette = SPACES[name].palette()
    count = len(SPACES[name].classes)
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    assert len({tuple(colour) for colour in palette[: count + 1].tolist()}) == count + 1
    assert not palette[count:].any()


def test_an_unknown_space_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match=r"^unknown label space 'camvid-12'; did you mean 'camvid-11'\?$"):
        space_named("camvid-12")
