"""Label spaces and labellings: facts of the benchmarks, worked by hand."""

import re
from pathlib import Path

import numpy as np
import pytest

from segda.data.labels.spaces import LABELLINGS, SPACES, UNKNOWN, space_named
from segda.data.rows import DATASETS
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
    "Ambiguous Barrier", "Signage - Advertisement", "Signage - Ambiguous", "Signage - Back", "Signage - Information",
    "Signage - Other", "Signage - Store", "Parking Meter", "Traffic Cone", "Water Valve", "Dynamic", "Ground", "Static",
    "Void", "unlabeled", "drivable fallback", "animal", "autorickshaw", "vehicle fallback", "curb", "billboard",
    "obs-str-bar-fallback", "fallback background", "other", "water",
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


COUNTS = {
    "camvid": 12, "camvid-32": 32, "cityscapes": 34, "cityscapes-train": 19, "gta5": 35, "idd": 40, "idd-level3": 26,
    "mapillary": 66, "mapillary-v2": 124, "shift": 23, "synthia": 23,
}  # fmt: skip
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
    excepted = {name for space in SPACES.values() for name in space.exceptions.get(labelling, {})}
    assert set(LABELLINGS[labelling].values()) <= classes | excepted | NEVER_A_CLASS
    assert all(0 <= id < UNKNOWN for id in LABELLINGS[labelling])


LACKING = {"idd-level3": {"train"}}
"""Classes that a labelling merges with others."""


@pytest.mark.parametrize("name", DATASETS)
def test_every_labelling_of_a_data_set_tells_each_class_of_its_space_apart(name):
    row = DATASETS[name]
    space = space_named(row.space)
    assert row.labels
    for _, labelling in row.labels:
        names = list(LABELLINGS[labelling].values())
        assert len(set(names)) == len(names)
        known = set(space.classes) - LACKING.get(labelling, set())
        ids = [(space.lookup(labelling) == space.classes.index(one)).sum() for one in known]
        assert ids == [1] * len(ids) if not space.members else min(ids) >= 1
        assert space.classes_in(labelling) == known


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
    for view in space.views.values():
        classes = [name for one in view for name in ((one,) if isinstance(one, str) else one)]
        assert len(set(classes)) == len(classes) and len(view) < len(space.classes)
        assert set(classes) <= set(space.classes)


@pytest.mark.parametrize("name", ["cityscapes-19", "synthia-16", "synthia-19"])
def test_the_seven_groups_of_a_view_are_those_of_mapillary_7(name):
    # Cityscapes' labels are measured on, whose terrain is nature there.
    seven, space = SPACES["mapillary-7"], SPACES[name]
    view = space.views["mIoU 7"]
    assert len(view) == 7 and sorted(one for group in view for one in group) == sorted(space.classes)
    for group, title in zip(view, seven.classes, strict=True):
        assert {seven.class_of(one, "cityscapes-train") for one in group} == {title}


def test_mapillary_is_read_in_the_classes_of_cityscapes_as_vfm_uda_does():
    # Its table of ids, from the public code: id of v1.2 -> train id.
    theirs = {
        13: 0, 24: 0, 41: 0, 2: 1, 15: 1, 17: 2, 6: 3, 3: 4, 45: 5, 47: 5, 48: 6, 50: 7, 30: 8, 29: 9, 27: 10, 19: 11,
        20: 12, 21: 12, 22: 12, 55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
    }  # fmt: skip
    table = SPACES["cityscapes-19"].lookup("mapillary")
    assert {id: int(table[id]) for id in range(66) if table[id] != IGNORE} == theirs


def test_the_124_classes_of_mapillary_are_a_refinement_of_the_66():
    # What both versions name is the same class in both, in every space.
    for name in ("cityscapes-19", "synthia-16", "mapillary-7"):
        space = SPACES[name]
        for shared in set(LABELLINGS["mapillary"].values()) & set(LABELLINGS["mapillary-v2"].values()):
            one, two = (space.class_of(shared, labelling) for labelling in ("mapillary", "mapillary-v2"))
            assert one == two, (name, shared)
    seven = SPACES["mapillary-7"]
    assert seven.class_of("Lane Marking - Stop Line", "mapillary-v2") == "flat"
    assert seven.class_of("Traffic Light - Cyclists", "mapillary-v2") == "object"


def test_camvids_32_classes_join_to_its_11():
    joined = SPACES["camvid-11"].lookup("camvid-32")
    names = LABELLINGS["camvid-32"]
    of = {names[id]: None if joined[id] == IGNORE else SPACES["camvid-11"].classes[joined[id]] for id in names}
    assert [name for name, known in of.items() if known is None] == ["Void"]
    assert (of["SUVPickupTruck"], of["LaneMkgsDriv"], of["Child"], of["Wall"]) == (
        "car", "road", "pedestrian", "building",
    )  # fmt: skip
    assert SPACES["camvid-32"].classes == tuple(name for name in names.values() if name != "Void")


def test_idds_ids_and_its_third_level_become_the_train_ids_of_its_authors():
    # csTrainId of AutoNUE's anue_labels.py, by id; a rickshaw, a kerb and all fallbacks but one are not evaluated.
    theirs = {
        0: 0, 3: 1, 5: 9, 6: 11, 8: 12, 9: 17, 10: 18, 12: 13, 13: 14, 14: 15, 17: 16, 20: 3, 21: 4, 24: 7, 25: 6,
        26: 5, 29: 2, 32: 8, 33: 10,
    }  # fmt: skip
    table = SPACES["cityscapes-19"].lookup("idd")
    assert {id: int(table[id]) for id in range(40) if table[id] != IGNORE} == theirs
    level3 = SPACES["cityscapes-19"].lookup("idd-level3")
    assert level3[[0, 2, 3, 4, 22, 25]].tolist() == [0, 1, 9, 11, 2, 10] and level3[8] == IGNORE


def test_terrain_is_flat_but_in_cityscapes_it_is_nature():
    space = SPACES["mapillary-7"]
    of = {labelling: space.class_of("terrain", labelling) for labelling in ("gta5", "synthia", "cityscapes")}
    assert of == {"gta5": "flat", "synthia": "flat", "cityscapes": "nature"}
    assert space.class_of("Terrain", "mapillary") == "flat"
    assert space.class_of("caravan", "cityscapes") == "vehicle" and space.class_of("caravan", "gta5") is None


def test_the_groups_in_the_documentation_are_those_of_the_space():
    space = SPACES["mapillary-7"]
    shown = (Path(__file__).parents[2] / "docs" / "DATA.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines() if line[:1] == "|"]
    rows = [row for row in rows if len(row) == 3]
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
    with pytest.raises(RecipeError, match=r"^unknown label space 'camvid11'; did you mean 'camvid-11'\?$"):
        space_named("camvid11")
