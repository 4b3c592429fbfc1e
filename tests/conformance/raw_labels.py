"""Labels as DAFormer's converters make them: recorded tables of ids, and a file of polygons with its picture."""

from __future__ import annotations

import json

import numpy as np

from golden import Golden
from layouts import save
from segda.data.labels.labellings import LABELLINGS
from segda.data.labels.spaces import CITYSCAPES_COLOURS, SPACES, UNKNOWN
from segda.data.sets.datasets import open_data
from segda.scene import IGNORE

GOLDEN = Golden("daformer_ebda").json("labels.json")
SPACE = SPACES["cityscapes-19"]


def table(labelling: str) -> list[int]:
    """Raw id -> train id, IGNORE for what is refused."""
    known = SPACE.lookup(labelling)
    return np.where(known == UNKNOWN, IGNORE, known).tolist()


def test_gta5s_ids_become_the_authors_train_ids():
    assert table("gta5") == GOLDEN["gta_id_to_train"]


def test_synthias_ids_become_the_authors_train_ids():
    assert table("synthia") == GOLDEN["synthia_id_to_train"]


def test_cityscapes_names_and_train_ids_are_the_authors():
    for label in GOLDEN["cityscapes_labels"]:
        if label["id"] >= 0:
            name = LABELLINGS["cityscapes"][label["id"]].replace("unlabelled", "unlabeled")
            assert (name, table("cityscapes")[label["id"]]) == (label["name"], label["trainId"])
    assert list(SPACE.classes) == GOLDEN["classes"]
    assert [list(colour) for colour in CITYSCAPES_COLOURS.values()] == GOLDEN["palette"]


def test_polygons_become_the_picture_and_the_statistics_that_the_authors_make_of_them(tmp_path):
    theirs = np.array(GOLDEN["polygons_label"], np.uint8)
    save(tmp_path / "leftImg8bit/train/town/a_leftImg8bit.png", np.zeros((*theirs.shape, 3), np.uint8))
    path = tmp_path / "gtFine/train/town/a_gtFine_polygons.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(GOLDEN["polygons"]))
    data = open_data("cityscapes:train", tmp_path)
    assert (data.read(0, label=True).label.numpy() == theirs).all()
    counts = {str(c): int(n) for c, n in enumerate(data.class_counts(0)[:-1]) if n}
    assert counts == {key: n for key, n in GOLDEN["polygons_stats"].items() if key != "file"}
