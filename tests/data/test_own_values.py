"""What labels of one's own hold, and what it is called: seen, said or assumed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segda.data.own.naming import list_beside, name_classes, parse_classes
from segda.data.own.values import Values, survey
from segda.errors import RecipeError

QUARTERS = np.kron([[0, 1], [2, 255]], np.ones((4, 4), int))


def saved(folder: Path, *pictures: np.ndarray | Image.Image) -> list[Path]:
    paths = []
    for number, picture in enumerate(pictures):
        image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
        paths.append(folder / f"{number}.png")
        image.save(paths[-1])
    return paths


def coloured(*colours: tuple[int, int, int]) -> np.ndarray:
    """(1, n, 3)."""
    return np.array([colours], np.uint8)


# What is seen


def test_ids_and_how_many_pixels_have_them(tmp_path):
    found = survey(saved(tmp_path, QUARTERS.astype(np.uint8), np.zeros((8, 8), np.uint8)))
    assert found.kind == "ids"
    assert found.pixels == {0: 16 + 64, 1: 16, 2: 16, 255: 16}


@pytest.mark.parametrize("what", ["16 bits", "equal channels", "a palette", "an array"])
def test_ids_of_every_kind_of_file(what, tmp_path):
    if what == "an array":
        paths = [tmp_path / "0.npy"]
        np.save(paths[0], QUARTERS)
    else:
        palette = Image.fromarray(QUARTERS.astype(np.uint8)).convert("P")
        palette.putdata(list(QUARTERS.ravel()))
        palette.putpalette([9, 8, 7] * 256)
        pictures = {
            "16 bits": QUARTERS.astype(np.uint16),
            "equal channels": np.repeat(QUARTERS[..., None], 3, 2).astype(np.uint8),
            "a palette": palette,
        }
        paths = saved(tmp_path, pictures[what])
    found = survey(paths)
    assert (found.kind, found.pixels) == ("ids", {0: 16, 1: 16, 2: 16, 255: 16})
    assert found.palette == ({id: (9, 8, 7) for id in (0, 1, 2, 255)} if what == "a palette" else {})


@pytest.mark.parametrize("bits", [1, 8])
def test_black_and_white(bits, tmp_path):
    black = Image.fromarray(np.array([[0, 255]], np.uint8))
    found = survey(saved(tmp_path, black.convert("1") if bits == 1 else black))
    named = name_classes(found, None)
    assert list(named.classes) == (["class_0", "class_1"] if bits == 1 else ["background", "foreground"])
    assert found.binary == (bits == 8)


def test_colours_though_the_first_labels_are_black(tmp_path):
    found = survey(saved(tmp_path, np.zeros((2, 2, 3), np.uint8), coloured((0, 0, 0), (128, 64, 128))))
    assert (found.kind, found.pixels) == ("colours", {(0, 0, 0): 5, (128, 64, 128): 1})


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        ([np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)], "over 256 colours"),
        (
            [np.arange(256, dtype=np.uint8).reshape(16, 16)],
            "have 256 values of grey, so they are photographs, or masks that",
        ),
        ([QUARTERS.astype(np.uint8), coloured((1, 2, 3))], "give labels of one kind"),
        ([np.array([[7000, 7001, 7002, 26000, 26001, 26002]], np.uint16)], "numbers of instances"),
    ],
)
def test_what_cannot_be_labels_is_refused(pictures, said, tmp_path):
    with pytest.raises(RecipeError, match=said):
        survey(saved(tmp_path, *pictures))


def test_names_of_shapes(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"shapes": [{"label": "road"}, {"label": "car"}, {"label": "car"}]}))
    found = survey([tmp_path / "a.json"])
    assert (found.kind, found.pixels) == ("shapes", {"road": 1, "car": 2})
    named = name_classes(found, None)
    assert list(named.classes) == ["background", "car", "road"]
    assert named.assumed == ["what no shape covers is background"]
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RecipeError, match=r"a\.json: neither labelme's JSON nor COCO's"):
        survey([tmp_path / "a.json"])


# What it is called


def ids(*found: int) -> Values:
    return Values("ids", Counter(dict.fromkeys(found, 10)))


def colours(*found: tuple[int, int, int]) -> Values:
    return Values("colours", Counter(dict.fromkeys(found, 10)))


@pytest.mark.parametrize(
    ("found", "names", "classes"),
    [
        (ids(0, 1, 255), ["road", "car"], {"road": 0, "car": 1}),
        (ids(3, 7), ["road", "car"], {"road": 3, "car": 7}),
        (ids(0, 2), ["road", "car", "sky"], {"road": 0, "car": 1, "sky": 2}),
        (ids(0, 255), ["healthy", "tumour"], {"healthy": 0, "tumour": 255}),
        (ids(0, 255), ["road"], {"road": 0}),
        (ids(0, 255), None, {"background": 0, "foreground": 255}),
        (ids(1, 4, 255), None, {"class_1": 1, "class_4": 4}),
    ],
)
def test_names_in_the_order_of_the_ids(found, names, classes):
    assert {name: one["id"] for name, one in name_classes(found, names).classes.items()} == classes


def test_names_that_are_too_few_are_refused_with_the_ids():
    with pytest.raises(RecipeError, match=r"names 2 classes, labels have 3 ids: 0, 1, 7; write .* road=0,car=7"):
        name_classes(ids(0, 1, 7), ["a", "b"])


def test_what_nobody_said_is_said(tmp_path):
    assert any("255 means nothing (33.3%" in line for line in name_classes(ids(0, 1, 255), ["a", "b"]).assumed)
    assert any("road is 3, car is 7" in line for line in name_classes(ids(3, 7), ["road", "car"]).assumed)
    named = name_classes(ids(0, 1, 9), {"road": {"id": 0}, "car": {"id": 1}})
    assert (named.ignored, named.assumed) == ([9], ["9 means nothing (33.3% of the pixels): no class has it"])


def test_colours_of_a_known_palette_and_of_none():
    known = name_classes(colours((128, 64, 128), (0, 0, 142), (70, 70, 70)), None)
    assert known.classes["road"] == {"colour": [128, 64, 128]}
    assert "cityscapes-19" in known.assumed[0]
    own = name_classes(colours((1, 2, 3), (4, 5, 6)), None)
    assert own.classes == {"colour_010203": {"colour": [1, 2, 3]}, "colour_040506": {"colour": [4, 5, 6]}}


def test_labels_of_nothing_but_255_are_refused():
    with pytest.raises(RecipeError, match=r"hold 255 alone, which means nothing; .* --classes thing=255"):
        name_classes(ids(255), None)


def test_a_long_list_of_values_without_a_class_is_one_line():
    named = name_classes(ids(*range(100)), {"road": {"id": 0}, "car": {"id": 1}})
    assert named.ignored == [*range(2, 100)]
    assert named.assumed == ["98 values mean nothing (98.0% of the pixels): no class has them"]


def test_more_classes_than_a_byte_holds_are_refused_with_the_ways_out():
    assert len(name_classes(ids(*range(254)), None).classes) == 254
    with pytest.raises(RecipeError) as caught:
        name_classes(ids(*range(0, 510, 2)), None)
    for words in ("255 classes, more than 254", "one byte a pixel", "as road=7", "{tree: {id: [3, 300]}}"):
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(name_classes(ids(*range(300)), {"road": {"id": 7}, "car": {"id": 290}}).classes) == ["road", "car"]


def test_names_without_colours_are_refused_where_labels_are_colours():
    with pytest.raises(RecipeError, match="write which is which, as road=#010203,car=#040506"):
        name_classes(colours((1, 2, 3), (4, 5, 6)), ["road", "car"])


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("road, car", ["road", "car"]),
        ("road=0,car=7", {"road": {"id": 0}, "car": {"id": 7}}),
        ("road=#804080", {"road": {"colour": [128, 64, 128]}}),
    ],
)
def test_what_the_command_line_says(words, found):
    assert parse_classes(words) == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("road,,car", "a name is empty"),
        ("road,road", "road is named twice"),
        ("road=0,car", "car has no value"),
        ("road=#80", "neither an id nor a colour"),
        ("road=-1", "neither an id nor a colour"),
    ],
)
def test_what_the_command_line_cannot_say(words, said):
    with pytest.raises(RecipeError, match=said):
        parse_classes(words)


def test_a_tools_list_is_found_beside_the_labels_and_above_them(tmp_path):
    (tmp_path / "masks").mkdir()
    assert list_beside(tmp_path / "masks") is None
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nroad:128,64,128::\n")
    assert list_beside(tmp_path / "masks") == tmp_path / "labelmap.txt"
    assert parse_classes(str(tmp_path / "labelmap.txt")) == {"road": {"colour": [128, 64, 128]}}
