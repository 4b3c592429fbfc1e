"""Labels of people's own: kinds of pictures and arrays that keep ids or colours, and those that do not."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from PIL import Image

from layouts import refused, save
from segda.commands.check_data import check_data
from segda.data.labels.class_lists import classes_in
from segda.data.sets.datasets import open_data
from segda.data.sets.specs import own_space
from segda.errors import DataError, RecipeError

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
COLOURS = np.array([[0, 0, 0], [128, 64, 128], [0, 0, 142]], np.uint8)


def folder(root, name="a.png", labels="l", classes=None, **told):
    """A data set of one image, whose label is still to be written: `l/NAME`."""
    save(root / "i/a.png", np.zeros((2, 3, 3), np.uint8))
    (root / "l").mkdir(exist_ok=True)
    classes = classes or {"x": {"id": 0}, "y": {"id": 1}, "z": {"id": 2}}
    told = {"splits": {"train": {"images": "i", "labels": labels}}, "classes": classes} | told
    (root / "x.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return f"folder:{root}/x.yaml:train", root / "l" / name


def label_of(spec):
    return open_data(spec).read(0, label=True).label.tolist()


def written(path, kind):
    """IDS as a picture of some kind."""
    picture = Image.fromarray(IDS)
    if kind == "16 bits":
        Image.fromarray(IDS.astype(np.uint16)).save(path)
    elif kind == "palette":
        picture.putpalette(COLOURS.ravel().tolist())
        picture.save(path)
    elif kind == "equal channels":
        Image.fromarray(np.dstack([IDS] * 3)).save(path)
    elif kind == "opaque":
        Image.fromarray(np.dstack([IDS] * 3 + [np.full_like(IDS, 255)])).save(path)
    elif kind == "npy":
        np.save(path, IDS.astype(np.int64))
    elif kind == "floats":
        np.save(path, IDS.astype(np.float32))
    else:
        picture.save(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "8 bits"), ("a.PNG", "8 bits"), ("a.png", "16 bits"), ("a.png", "palette"), ("a.tif", "8 bits"),
        ("a.tiff", "16 bits"), ("a.bmp", "8 bits"), ("a.png", "equal channels"), ("a.png", "opaque"), ("a.npy", "npy"),
        ("a.npy", "floats"), ("a.gif", "palette"),
    ],
)  # fmt: skip
def test_ids_are_read_from_every_kind_of_file_that_keeps_them(tmp_path, name, kind):
    spec, path = folder(tmp_path, name)
    written(path, kind)
    assert label_of(spec) == IDS.tolist()
    assert check_data(spec).usable


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_of_few_bits_keeps_its_ids(tmp_path, bits):
    """A PNG by hand, whose rows are packed: Pillow would stretch the ids to 0 .. 255."""
    from layouts import png

    spec, path = folder(tmp_path)
    rows = b""
    for row in IDS:
        number = 0
        for id in row:
            number = number << bits | int(id)
        used = bits * len(row)
        rows += b"\0" + (number << (-used % 8)).to_bytes(-(-used // 8), "big")
    path.write_bytes(png(3, 2, bits, 0, rows))
    assert label_of(spec) == IDS.tolist()


@pytest.mark.parametrize(("white", "other"), [(1, 0), (255, 0), ([1, 255], 0)])
def test_white_is_1_or_255_whichever_is_a_class(tmp_path, white, other):
    spec, path = folder(tmp_path, classes={"ground": {"id": other}, "hole": {"id": white}})
    Image.fromarray(IDS == 1).save(path)
    assert label_of(spec) == (IDS == 1).astype(int).tolist()
    read_as = 255 if white == 255 else 1
    assert any(f"black and white, read as 0 and {read_as}" in note for note in check_data(spec).notes)


def test_ids_above_255_are_read_and_an_unknown_one_is_named(tmp_path):
    spec, path = folder(tmp_path, classes={"x": {"id": 300}, "y": {"id": [7, 65535]}}, ignored=[1000])
    wide = np.array([[300, 7, 65535], [1000, 255, 300]], np.uint16)
    Image.fromarray(wide).save(path)
    assert label_of(spec) == [[0, 1, 1], [255, 255, 0]]
    data = open_data(spec)
    assert data.class_counts(0).tolist() == [2, 2, 2]
    wide[0, 0] = 301
    Image.fromarray(wide).save(path)
    assert "has id 301 (1 pixels), which no class has" in refused(data, path)
    (line,) = check_data(spec).faults["unknown ids"]
    assert line.endswith("301 (1 pixels)")


def test_wide_ids_where_all_classes_are_below_256_are_unknown(tmp_path):
    spec, path = folder(tmp_path)
    Image.fromarray(np.array([[0, 1, 2], [2, 1, 26001]], np.uint16)).save(path)
    assert "has id 26001 (1 pixels)" in refused(open_data(spec), path)


@pytest.mark.parametrize("kind", ["rgb", "rgba", "palette"])
def test_colours_are_read_from_every_kind_of_picture_that_keeps_them(tmp_path, kind):
    classes = {name: {"colour": colour} for name, colour in zip("xyz", COLOURS.tolist(), strict=True)}
    spec, path = folder(tmp_path, classes=classes, labels_are="colours")
    if kind == "palette":
        written(path, kind)
    else:
        pixels = COLOURS[IDS]
        alpha = np.where(IDS == 0, 0, 255).astype(np.uint8)  # transparent where nothing was painted
        Image.fromarray(np.dstack([pixels, alpha]) if kind == "rgba" else pixels).save(path)
    assert label_of(spec) == IDS.tolist()
    assert any("alpha channel, which is left out" in note for note in check_data(spec).notes) == (kind == "rgba")


def test_grey_colours_are_colours_too(tmp_path):
    classes = {"x": {"colour": [0, 0, 0]}, "y": {"colour": [255, 255, 255]}}
    spec, path = folder(tmp_path, classes=classes, labels_are="colours")
    for picture in (Image.fromarray((IDS == 1).astype(np.uint8) * 255), Image.fromarray(IDS == 1)):
        picture.save(path)
        assert label_of(spec) == (IDS == 1).astype(int).tolist()


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp"])
def test_a_lossy_label_is_refused_with_the_reason(tmp_path, name):
    spec, path = folder(tmp_path, name)
    Image.fromarray(IDS).convert("RGB").save(path)
    message = refused(open_data(spec), path)
    assert "which changes values" in message and "export the labels again as PNG" in message
    assert not check_data(spec).usable


def test_a_jpeg_that_is_called_png_is_a_jpeg(tmp_path):
    spec, path = folder(tmp_path)
    Image.fromarray(IDS).save(path, format="JPEG")
    assert "is a JPEG, which changes values" in refused(open_data(spec), path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 3, 3)), "has the shape (2, 3, 3)"),
        (np.array([[0, 1, 2], [2, 1, -1]]), "-1 is no id"),
        (np.full((2, 3), 0.5), "no whole numbers"),
        (np.full((2, 3), 70000), "70000 is no id"),
        (np.array([["a"] * 3] * 2), "no whole numbers"),
        (np.array([[None] * 3] * 2, object), "no array that numpy can read"),
        (b"no array", "no array that numpy can read"),
    ],
)
def test_an_array_that_is_no_label_is_refused(tmp_path, array, message):
    spec, path = folder(tmp_path, "a.npy")
    path.write_bytes(array) if isinstance(array, bytes) else np.save(path, array)
    assert message in refused(open_data(spec), path)


def test_blended_alpha_is_refused(tmp_path):
    spec, path = folder(tmp_path)
    Image.fromarray(np.dstack([IDS, IDS, IDS, IDS + 100])).save(path)
    assert "its alpha blends colours" in refused(open_data(spec), path)


# One mask a class


@pytest.fixture
def masks(tmp_path):
    spec, _ = folder(
        tmp_path, labels="m/{class}/{key}.png", classes={"ground": {}, "road": {}, "car": {}}, rest="ground"
    )
    save(tmp_path / "m/road/a.png", np.array([[0, 255, 255], [0, 0, 0]], np.uint8))
    save(tmp_path / "m/car/a.png", np.array([[0, 0, 1], [1, 0, 0]], np.uint8))
    return spec


def test_masks_of_single_classes_are_laid_over_each_other_in_the_order_of_classes(masks, tmp_path):
    assert label_of(masks) == [[0, 1, 2], [2, 0, 0]]
    report = check_data(masks)
    assert report.usable and any("several classes' masks" in note and "(1 pixels)" in note for note in report.notes)
    (tmp_path / "m/road/a.png").unlink()  # a class that the image does not have
    assert label_of(masks) == [[0, 0, 2], [2, 0, 0]]


def test_what_no_mask_covers_is_ignored_unless_a_class_is_said_to_be_there(tmp_path, masks):
    told = yaml.safe_load((tmp_path / "x.yaml").read_text())
    del told["rest"]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    assert label_of(masks) == [[255, 1, 2], [2, 255, 255]]


def test_a_mask_of_an_unknown_class_or_of_many_values_is_refused(tmp_path, masks):
    save(tmp_path / "m/bus/a.png", np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match="mask of 'bus', which is no class"):
        label_of(masks)
    (tmp_path / "m/bus/a.png").unlink()
    save(tmp_path / "m/car/a.png", np.array([[0, 100, 200], [0, 0, 0]], np.uint8))
    with pytest.raises(DataError, match="has the values 0, 100, 200"):
        label_of(masks)


# Lists of classes


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("_classes.csv", "Pixel Value, Class\n0, background\n1, car\n", {"background": {"id": 0}, "car": {"id": 1}}),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,64,128::\n",
            {"background": {"colour": [0, 0, 0]}, "road": {"colour": [128, 64, 128]}},
        ),
        ("obj.names", "road\ncar\n", {"road": {"id": 0}, "car": {"id": 1}}),
        ("labels.txt", "__ignore__\n_background_\ncar\n", {"_background_": {"id": 0}, "car": {"id": 1}}),
    ],
)
def test_classes_may_be_a_tools_list(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert classes_in(tmp_path / name) == expected
    spec, _ = folder(tmp_path, classes=name, labels_are="colours" if "colour" in str(expected) else "ids")
    assert own_space(spec).classes == tuple(expected)


@pytest.mark.parametrize(
    ("name", "text"),
    [("_classes.csv", "Pixel Value, Class\nx, y\n1, car\n"), ("labelmap.txt", "a:1,2::\n"), ("classes.txt", ""),
     ("classes.txt", "a\na\n"), ("absent.txt", None)],
)  # fmt: skip
def test_a_list_of_classes_that_is_none_is_refused(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    spec, _ = folder(tmp_path, classes=name)
    with pytest.raises(RecipeError, match=name):
        own_space(spec)
