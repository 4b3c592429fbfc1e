"""Labels that are no plain pictures of ids: polygons, numbers of objects, colours; and ids of another labelling."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from layouts import encoded, png, refused, save, write_row
from segda.data.files.images import Colours, read_ids
from segda.data.labels.labellings import CAMVID_COLOURS, LABELLINGS
from segda.data.labels.spaces import SPACES
from segda.data.sets.datasets import open_data
from segda.errors import DataError
from segda.scene import IGNORE

POLYGONS = "polygons of Cityscapes"
CAMVID = "colours of CamVid"


def polygons(*objects: tuple[str, list], size=(8, 6), **more) -> str:
    shapes = [{"label": label, "polygon": polygon, **more} for label, polygon in objects]
    return json.dumps({"imgWidth": size[0], "imgHeight": size[1], "objects": shapes})


LEFT, MIDDLE = [[0, 0], [3, 0], [3, 5], [0, 5]], [[2, 1], [5, 1], [5, 4], [2, 4]]


def ids_of(tmp_path, text: str, decoder: str = POLYGONS) -> np.ndarray:
    path = tmp_path / "x_polygons.json"
    path.write_text(text)
    return read_ids(path, decoder)


def fails(tmp_path, text: str, decoder: str = POLYGONS) -> str:
    with pytest.raises(DataError) as caught:
        ids_of(tmp_path, text, decoder)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'x_polygons.json'}") and "\n" not in message
    return message


def test_later_polygons_lie_over_earlier_ones_and_the_rest_is_unlabelled(tmp_path):
    ids = ids_of(tmp_path, polygons(("road", LEFT), ("car", MIDDLE)))
    by_hand = np.zeros((6, 8), np.uint8)
    by_hand[:, :4], by_hand[1:5, 2:6] = 7, 26  # corners are inside
    assert ids.dtype == np.uint8 and (ids == by_hand).all()
    assert (ids_of(tmp_path, polygons(("car", MIDDLE), ("road", LEFT)))[1:5, 2:6] == [7, 7, 26, 26]).all()


def test_groups_are_their_class_and_plates_and_deleted_objects_are_not_drawn(tmp_path):
    assert (ids_of(tmp_path, polygons(("cargroup", LEFT)))[:, :4] == 26).all()
    assert (ids_of(tmp_path, polygons(("polegroup", LEFT)))[:, :4] == 18).all()  # a class of its own
    plate = ids_of(tmp_path, polygons(("car", LEFT), ("license plate", MIDDLE)))
    assert set(np.unique(plate)) == {0, 26}
    assert not ids_of(tmp_path, polygons(("car", LEFT), deleted=1)).any()
    assert (ids_of(tmp_path, polygons(("unlabeled", LEFT)))[:, :4] == 0).all()


def test_idds_polygons_have_names_of_their_own_and_are_unlabelled_besides(tmp_path):
    ids = ids_of(tmp_path, polygons(("autorickshaw", LEFT), ("traffic light", MIDDLE)), "polygons of IDD")
    assert set(np.unique(ids)) == {11, 25, 35} and LABELLINGS["idd"][35] == "unlabeled"
    assert "'autorickshaw'" in fails(tmp_path, polygons(("autorickshaw", LEFT)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no polygons"),
        ("[]", "no polygons as Cityscapes has them"),
        ('{"imgWidth": 3}', "KeyError: 'imgHeight'"),
        (polygons(("road", [[0, 0], [1]])), "ValueError"),
        (polygons(("road", [["a", 0], [1, 1], [2, 2]])), "ValueError"),
        (polygons(("unicorn", LEFT)), "has a 'unicorn', which its labelling does not name; download it again"),
        (polygons(("roadgroupgroup", LEFT)), "has a 'roadgroup', which"),
        (polygons(size=(0, 4)), "a picture of 0x4 cannot be"),
        (polygons(size=(90000, 90000)), "a picture of 90000x90000 cannot be"),
    ],
)
def test_what_are_no_polygons_is_refused(tmp_path, text, message):
    assert message.removeprefix("is ") in fails(tmp_path, text)


def test_polygons_that_are_missing_are_named(tmp_path):
    with pytest.raises(DataError, match="x_polygons.json: no such file; restore it"):
        read_ids(tmp_path / "x_polygons.json", POLYGONS)


def test_lines_and_points_are_no_areas(tmp_path):
    assert not ids_of(tmp_path, polygons(("road", [[0, 0], [7, 5]]), ("road", [[3, 3]]), ("road", []))).any()


@pytest.fixture
def cityscapes(tmp_path):
    write_row(tmp_path, "cityscapes", "gtFine/{split}/{city}/{key}_gtFine_labelIds.png", "cityscapes")
    return open_data("cityscapes:train", tmp_path)


def test_every_form_of_cityscapes_labels_means_the_same(cityscapes, tmp_path):
    path = cityscapes.label_path(0)
    with Image.open(path) as picture:
        ids = np.array(picture)
    ids[ids == IGNORE] = 0  # polygons have no such thing
    save(path, ids)
    expected = cityscapes.read(0, label=True).label
    numbers = np.where(ids >= 24, ids.astype(int) * 1000 + 7, ids)
    rows = b"".join(b"\0" + row.tobytes() for row in numbers.astype(">u2"))
    shapes = [(LABELLINGS["cityscapes"][id], [[x, y]] * 3) for (y, x), id in np.ndenumerate(ids)]
    forms = {
        "labelTrainIds.png": encoded(SPACES["cityscapes-19"].lookup("cityscapes")[ids]),
        "instanceIds.png": png(9, 6, 16, 0, rows),
        "polygons.json": polygons(*shapes, size=(9, 6)).replace("unlabelled", "unlabeled").encode(),
    }
    for ending, content in forms.items():
        path.unlink()
        path = path.with_name(path.name.partition("_gtFine_")[0] + f"_gtFine_{ending}")
        path.write_bytes(content)
        assert cityscapes.label_path(0) == path
        assert torch.equal(cityscapes.read(0, label=True).label, expected), ending


def test_numbers_of_objects_that_are_none_are_refused(tmp_path):
    path = tmp_path / "x_instanceIds.png"
    for value, message in ((999, "999 is no id"), (26001, None), (0, None)):
        path.write_bytes(png(2, 1, 16, 0, b"\0" + np.array([7, value], ">u2").tobytes()))
        if message is None:
            assert read_ids(path, "instances").tolist() == [[7, value // 1000]]
        else:
            with pytest.raises(DataError, match=message):
                read_ids(path, "instances")
    save(path, np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match="greyscale with 8 bits a channel, where numbers of objects are 16-bit"):
        read_ids(path, "instances")


def test_colours_become_ids_and_one_that_no_class_has_is_named(tmp_path):
    path = tmp_path / "x_L.png"
    ids = np.arange(32, dtype=np.uint8).reshape(4, 8)
    rgb = np.array(list(CAMVID_COLOURS.values()), np.uint8)[ids]
    save(path, rgb)
    assert (read_ids(path, CAMVID) == ids).all()
    rgb[1, 2], rgb[3, 3] = (1, 2, 3), (250, 2, 3)
    save(path, rgb)
    with pytest.raises(
        DataError, match=r"has 2 pixels of colours that no class has, first \(1, 2, 3\); use the data set"
    ):
        read_ids(path, CAMVID)
    save(path, ids)
    with pytest.raises(DataError, match="greyscale with 8 bits a channel, where 8-bit RGB is needed"):
        read_ids(path, CAMVID)


def test_the_highest_colour_is_found_and_the_one_above_it_is_not(tmp_path):
    decoder = Colours((((0, 0, 0), 3), ((200, 0, 0), 9)))
    save(tmp_path / "x.png", np.array([[[200, 0, 0], [0, 0, 0]]], np.uint8))
    assert read_ids(tmp_path / "x.png", decoder).tolist() == [[9, 3]]
    save(tmp_path / "x.png", np.array([[[255, 255, 255], [0, 0, 0]]], np.uint8))
    with pytest.raises(DataError, match=r"first \(255, 255, 255\)"):
        read_ids(tmp_path / "x.png", decoder)


def test_camvids_colours_in_the_eleven_classes(tmp_path):
    write_row(tmp_path / "camvid", "camvid-32", "LabeledApproved_full/{key}_L.png", "camvid-32")
    data = open_data("camvid-32:train", tmp_path, SPACES["camvid-11"])
    rgb = np.zeros((6, 9, 3), np.uint8)
    rgb[:2], rgb[2:4] = CAMVID_COLOURS["SUVPickupTruck"], CAMVID_COLOURS["Misc_Text"]
    save(data.label_path(0), rgb)
    label = data.read(0, label=True).label
    classes = data.space.classes
    assert label[:, 0].tolist() == [classes.index("car")] * 2 + [classes.index("sign symbol")] * 2 + [IGNORE] * 2


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "L"])
def test_shifts_ids_are_red_whatever_else_the_picture_has(tmp_path, kind):
    ids = np.arange(20, dtype=np.uint8).reshape(4, 5)
    others = {"RGB": (255 - ids, ids // 2), "RGBA": (255 - ids, ids // 2, np.full_like(ids, 9)), "L": None}[kind]
    save(tmp_path / "x.png", ids if others is None else np.stack([ids, *others], -1))
    assert (read_ids(tmp_path / "x.png", "red channel") == ids).all()


# Ids of another labelling than the file's name says.


def street(train_ids: bool) -> np.ndarray:
    """Road, buildings, plants, sky, a car: label ids or train ids, 64 x 64."""
    ids = np.full((64, 64), 4, np.uint8)  # static: void
    for k, id in enumerate((7, 11, 21, 23, 26)):
        ids[k * 12 : (k + 1) * 12] = id
    return SPACES["cityscapes-19"].lookup("cityscapes")[ids] if train_ids else ids


@pytest.mark.parametrize(("name", "labelling"), [("cityscapes", "cityscapes"), ("gta5", "gta5")])
def test_train_ids_in_a_file_of_label_ids_are_refused(tmp_path, name, labelling):
    template = {"cityscapes": "gtFine/{split}/{city}/{key}_gtFine_labelIds.png", "gta5": "labels/{key}.png"}[name]
    write_row(tmp_path, name, template, labelling)
    data = open_data(f"{name}:train", tmp_path)
    for i in range(2):
        save(data.image_path(i), np.zeros((64, 64, 3), np.uint8))
        save(data.label_path(i), street(train_ids=i == 1))
    assert (data.read(0, label=True).label[:12] == 0).all()
    message = refused(data, data.label_path(1), 1)
    assert (
        "should hold label ids (7 road ... 33 bicycle) and seems to hold train ids (0 road ... 18 bicycle)" in message
    )
    with pytest.raises(DataError, match="seems to hold train ids"):
        data.class_counts(1)


def test_label_ids_in_a_file_of_train_ids_are_refused_with_their_name(tmp_path):
    template = "gtFine/{split}/{city}/{key}_gtFine_labelTrainIds.png"
    write_row(tmp_path, "cityscapes", template, "cityscapes-train")
    data = open_data("cityscapes:train", tmp_path)
    save(data.image_path(0), np.zeros((64, 64, 3), np.uint8))
    save(data.label_path(0), street(train_ids=False))
    message = refused(data, data.label_path(0))
    assert "has id 21 (768 pixels), 23 (768 pixels), 26 (768 pixels), which are label ids where train ids" in message
    save(data.label_path(0), np.full((64, 64), 40, np.uint8))
    assert "has id 40 (4096 pixels), which labelling 'cityscapes-train' does not name" in refused(
        data, data.label_path(0)
    )


@pytest.mark.parametrize(
    "ids",
    [
        np.full((64, 64), 3),  # the public labels of test: all of it out of the region of interest
        np.where(np.arange(4096).reshape(64, 64) < 2000, 11, 7),  # a wall and a road
        np.where(np.arange(4096).reshape(64, 64) < 1300, 1, 7),  # less than a third of void
        np.where(np.arange(4096).reshape(64, 64) == 77, 23, 4),  # one pixel of sky
    ],
)
def test_pictures_of_label_ids_with_few_classes_are_let_pass(tmp_path, ids):
    write_row(tmp_path, "cityscapes", "gtFine/{split}/{city}/{key}_gtFine_labelIds.png", "cityscapes")
    data = open_data("cityscapes:train", tmp_path)
    save(data.label_path(0), ids.astype(np.uint8))
    assert data.class_counts(0).sum() == 4096


def test_polygons_are_drawn_as_pillow_draws_them(tmp_path):
    rng = np.random.default_rng(4)
    shapes = [(name, rng.integers(-3, 40, (5, 2)).tolist()) for name in ("road", "car", "person", "sky", "tunnel")]
    theirs = Image.new("L", (36, 30))
    for name, polygon in shapes:
        id = next(id for id, known in LABELLINGS["cityscapes"].items() if known == name)
        ImageDraw.Draw(theirs).polygon([tuple(point) for point in polygon], fill=id)
    assert (ids_of(tmp_path, polygons(*shapes, size=(36, 30))) == np.array(theirs)).all()
