"""Label spaces and labellings: facts of the benchmarks, worked by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from segda.data.datasets import DATASETS
from segda.data.labels import LABELLINGS, SPACES, UNKNOWN, space_named
from segda.errors import RecipeError
from segda.evaluation.metrics import Report
from segda.scene import IGNORE

CITYSCAPES = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12, 26: 13, 27: 14, 28: 15,
    31: 16, 32: 17, 33: 18,
}  # fmt: skip
"""Cityscapes' id -> train id; its other ids up to 33 are not evaluated."""

NEVER_A_CLASS = {
    "unlabelled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "parking",
    "rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer", "license plate", "void",
    "parking slot", "road work", "lane marking", "Bird", "Ground Animal", "Mountain", "Sand", "Snow", "Water",
    "Banner", "Bench", "Bike Rack", "Billboard", "Catch Basin", "CCTV Camera", "Fire Hydrant", "Junction Box",
    "Mailbox", "Manhole", "Phone Booth", "Trash Can", "Car Mount", "Ego Vehicle", "Unlabeled",
}  # fmt: skip
"""What files may hold and no space has, in any labelling without an exception."""


def test_cityscapes_ids_become_the_benchmarks_train_ids():
    table = SPACES["cityscapes-19"].lookup("cityscapes")
    assert {id: int(table[id]) for id in range(34) if table[id] != IGNORE} == CITYSCAPES


def test_train_ids_of_cityscapes_stay_what_they_are():
    table = SPACES["cityscapes-19"].lookup("cityscapes-train")
    assert table[:19].tolist() == list(range(19))


def test_camvids_eleven_ids_stay_and_the_twelfth_is_ignored():
    table = SPACES["camvid-11"].lookup("camvid")
    assert table[:12].tolist() == [*range(11), IGNORE]


COUNTS = {"camvid": 12, "cityscapes": 34, "cityscapes-train": 19, "gta5": 35, "synthia": 23, "mapillary": 66}
"""How many ids, from 0 on, a labelling names."""


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_ids_without_a_name_are_unknown_and_255_is_ignored(labelling):
    first = COUNTS[labelling]
    for space in SPACES.values():
        table = space.lookup(labelling)
        assert (table[first:255] == UNKNOWN).all()
        assert (table[:first] != UNKNOWN).all()
        assert table[255] == IGNORE


def test_a_name_means_the_same_class_in_another_space():
    # CamVid calls a sidewalk "pavement": a name that a space lacks is ignored in it, not guessed.
    table = SPACES["cityscapes-19"].lookup("camvid")
    assert table[:12].tolist() == [10, 2, 5, 0, 255, 255, 255, 4, 13, 255, 255, 255]


@pytest.mark.parametrize("labelling", LABELLINGS)
def test_every_name_of_a_labelling_is_a_class_of_some_space_or_never_one(labelling):
    classes = {name for space in SPACES.values() for name in (*space.classes, *sum(space.members.values(), ()))}
    assert not classes & NEVER_A_CLASS
    assert set(LABELLINGS[labelling].values()) <= classes | NEVER_A_CLASS
    assert all(0 <= id < UNKNOWN for id in LABELLINGS[labelling])


@pytest.mark.parametrize("name", DATASETS)
def test_every_labelling_of_a_data_set_tells_each_class_of_its_space_apart(name):
    row = DATASETS[name]
    space = space_named(row.space)
    assert row.labels
    for _, labelling in row.labels:
        names = list(LABELLINGS[labelling].values())
        assert len(set(names)) == len(names)
        ids = [(space.lookup(labelling) == c).sum() for c in range(len(space.classes))]
        assert ids == [1] * len(ids) if not space.members else min(ids) >= 1
        assert space.classes_in(labelling) == set(space.classes)


def test_a_class_that_no_id_becomes_is_not_told_apart():
    assert SPACES["cityscapes-19"].classes_in("camvid") == {"sky", "building", "pole", "road", "fence", "car"}
    assert SPACES["mapillary-7"].classes_in("camvid") == set(SPACES["mapillary-7"].classes) - {"nature"}
    assert SPACES["camvid-11"].classes_in("mapillary") == set()


@pytest.mark.parametrize("name", SPACES)
def test_members_exceptions_and_views_name_what_there_is(name):
    space = SPACES[name]
    members = [member for names in space.members.values() for member in names]
    assert len(set(members)) == len(members), "a name is a member of two classes"
    assert not set(members) & set(space.classes), "a class is a member of another"
    assert set(space.members) <= set(space.classes)
    for labelling, exceptions in space.exceptions.items():
        assert set(exceptions) <= set(LABELLINGS[labelling].values())
        assert set(exceptions.values()) <= set(space.classes)
    for classes in space.views.values():
        assert len(set(classes)) == len(classes) < len(space.classes)
        assert set(classes) <= set(space.classes)


def test_terrain_is_flat_but_in_cityscapes_it_is_nature():
    space = SPACES["mapillary-7"]
    of = {labelling: space.class_of("terrain", labelling) for labelling in ("gta5", "synthia", "cityscapes")}
    assert of == {"gta5": "flat", "synthia": "flat", "cityscapes": "nature"}
    assert space.class_of("Terrain", "mapillary") == "flat"
    assert space.class_of("caravan", "cityscapes") == "vehicle" and space.class_of("caravan", "gta5") is None


def test_the_groups_in_the_documentation_are_those_of_the_space():
    space = SPACES["mapillary-7"]
    shown = (Path(__file__).parents[1] / "docs" / "DATA.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line[:1] == "|"]
    groups = {group: re.split(", ", names) for group, _, names in rows if group in space.classes}
    assert list(groups) == list(space.classes)
    for group, names in groups.items():
        assert sorted(names) == sorted(
            name for name in LABELLINGS["mapillary"].values() if space.class_of(name, "mapillary") == group
        )
    plain = {group: set(re.findall("[a-z][a-z ]*[a-z]", names)) for group, names, _ in rows if group in space.classes}
    for name in SPACES["cityscapes-19"].classes:
        assert name in plain[space.class_of(name, "gta5")] or name == "terrain", name


def test_capitals_tell_mapillarys_names_from_cityscapes():
    space = SPACES["mapillary-7"]
    assert space.class_of("Parking", "mapillary") == "flat" and space.class_of("parking", "cityscapes") is None


def test_thirteen_of_synthias_sixteen_classes_have_a_mean_of_their_own():
    space = SPACES["synthia-16"]
    assert space.classes == tuple(
        name for name in SPACES["cityscapes-19"].classes if name not in ("terrain", "truck", "train")
    )
    assert set(space.classes) - set(space.views["mIoU 13"]) == {"wall", "fence", "pole"}


def test_nineteen_outputs_on_synthia_are_scored_on_the_sixteen_and_thirteen_it_has():
    space = SPACES["synthia-19"]
    assert space.classes == SPACES["cityscapes-19"].classes
    assert space.views["mIoU 16"] == SPACES["synthia-16"].classes
    assert space.views["mIoU 13"] == SPACES["synthia-16"].views["mIoU 13"]


def test_the_mean_over_sixteen_is_the_authors_mean_over_nineteen_times_19_over_16():
    # DAFormer's README: what is never predicted has IoU 0, so that mIoU16 = mIoU19 * 19 / 16.
    space = SPACES["synthia-19"]
    counts = np.random.default_rng(0).integers(1, 50, (20, 19))
    counts[:, [space.classes.index(name) for name in ("terrain", "truck", "train")]] = 0
    report = Report(None, space.classes, counts, space.views)
    iou = np.array([counts[c, c] / (counts[c].sum() + counts[:, c].sum() - counts[c, c]) for c in range(19)])
    assert report.view("mIoU 16") == pytest.approx(iou.mean() * 19 / 16)


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
