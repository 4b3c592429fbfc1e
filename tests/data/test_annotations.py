"""Labels that annotation tools write, against pixels that were worked out by hand or by the tools' own libraries."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
import yaml
from PIL import Image

from layouts import save
from segda.commands.check_data import check_data
from segda.data.labels.brush_rle import brush
from segda.data.sets.datasets import open_data
from segda.errors import DataError

SIZE = (8, 10)
BOX = [[2, 1], [5, 1], [5, 4], [2, 4]]
"""The corners of a car: columns 2 to 5, rows 1 to 4, its edge among them."""


def expected(*rows_and_columns: tuple[slice, slice], rest: int = 0) -> list:
    label = np.full(SIZE, rest)
    for number, place in enumerate(rows_and_columns, 1):
        label[place] = number
    return label.tolist()


CAR = (slice(1, 5), slice(2, 6))


def folder(root, labels, classes=("background", "car", "road"), **told):
    save(root / "i/a.png", np.zeros((*SIZE, 3), np.uint8))
    known = classes if isinstance(classes, dict) else {name: {} for name in classes}
    told = {"splits": {"train": {"images": "i", "labels": labels}}, "classes": known} | told
    (root / "x.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    return f"folder:{root}/x.yaml:train"


def label_of(spec):
    return open_data(spec).read(0, label=True).label.tolist()


def labelme(*shapes, size=SIZE):
    return {
        "shapes": [{"label": name, "points": points, "shape_type": kind} | more for name, points, kind, more in shapes],
        "imagePath": "a.png", "imageHeight": size[0] if size else None, "imageWidth": size[1] if size else None,
    }  # fmt: skip


def put(path, tree):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree))


@pytest.mark.parametrize("labels", ["j/{key}.json", "j"])
@pytest.mark.parametrize("size", [SIZE, None])
def test_polygons_and_boxes_of_labelme_are_drawn_in_their_order(tmp_path, labels, size):
    put(
        tmp_path / "j/a.json",
        labelme(("car", BOX, "polygon", {}), ("road", [[9, 7], [0, 6]], "rectangle", {}), size=size),
    )
    road = (slice(6, 8), slice(0, 10))
    assert label_of(folder(tmp_path, labels)) == expected(CAR, road)
    assert check_data(folder(tmp_path, labels)).usable


def test_a_mask_and_a_circle_of_labelme_are_drawn(tmp_path):
    file = io.BytesIO()
    Image.fromarray(np.array([[True, False], [True, True]])).save(file, "PNG")
    mask = base64.b64encode(file.getvalue()).decode()
    put(
        tmp_path / "j/a.json",
        labelme(("road", [[4, 3], [6, 3]], "circle", {}), ("car", [[1, 0], [2, 1]], "mask", {"mask": mask})),
    )
    label = np.array(label_of(folder(tmp_path, "j/{key}.json")))
    assert label[0, 1:3].tolist() == [1, 0] and label[1, 1:3].tolist() == [1, 1]
    rows, columns = np.nonzero(label == 2)
    theirs = {(y, x) for y in range(8) for x in range(10) if (x - 4) ** 2 + (y - 3) ** 2 <= 4}
    assert theirs <= set(zip(rows.tolist(), columns.tolist(), strict=True)) and len(rows) <= len(theirs) + 8


def test_a_name_that_is_no_class_is_refused_or_ignored(tmp_path):
    put(tmp_path / "j/a.json", labelme(("Car", BOX, "polygon", {})))
    with pytest.raises(DataError, match="has a 'Car', which is no class; did you mean 'car'"):
        label_of(folder(tmp_path, "j/{key}.json"))
    label = np.array(label_of(folder(tmp_path, "j/{key}.json", ignored=["Car"])))
    assert (label[CAR] == 255).all() and (label == 255).sum() == 16


def test_what_no_shape_covers_is_background_or_the_rest_or_ignored(tmp_path):
    put(tmp_path / "j/a.json", labelme(("car", BOX, "polygon", {})))
    assert label_of(folder(tmp_path, "j", ("car", "road")))[7][9] == 255
    assert label_of(folder(tmp_path, "j", ("car", "road"), rest="road"))[7][9] == 1
    assert label_of(folder(tmp_path, "j", ("car", "_background_")))[7][9] == 1


def coco(segmentation, name="a.png", **more):
    return {
        "images": [{"id": 3, "file_name": name, "height": SIZE[0], "width": SIZE[1]}],
        "categories": [{"id": 7, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 3, "category_id": 7, "segmentation": segmentation} | more],
    }


@pytest.mark.parametrize("name", ["a.png", "upload/i/a.png", "a.jpg", "i\\a.png"])
def test_polygons_of_coco_belong_to_the_image_of_their_name(tmp_path, name):
    put(tmp_path / "all.json", coco([[2, 1, 5, 1, 5, 4, 2, 4]], name))
    spec = folder(tmp_path, "all.json")
    assert label_of(spec) == expected(CAR)
    data = open_data(spec)
    data.check_pairs()
    assert data.label_place(0).startswith(f"{tmp_path}/all.json/") and check_data(spec).usable


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_of_coco_are_those_of_its_own_library(tmp_path, compressed):
    from pycocotools import mask as theirs

    mask = np.random.default_rng(2).integers(0, 2, SIZE).astype(np.uint8)
    coded = theirs.encode(np.asfortranarray(mask))
    counts: object = coded["counts"].decode()
    if not compressed:
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs = np.diff([0, *edges, flat.size]).tolist()
        counts = runs if flat[0] == 0 else [0, *runs]
    put(tmp_path / "all.json", coco({"size": list(SIZE), "counts": counts}))
    assert label_of(folder(tmp_path, "all.json")) == mask.tolist()


def test_an_image_that_a_file_of_annotations_lacks_has_no_label(tmp_path):
    put(tmp_path / "all.json", coco([[2, 1, 5, 1, 5, 4]], "other.png"))
    report = check_data(folder(tmp_path, "all.json"))
    assert not report.usable and report.faults.keys() == {"images without label", "labels without image"}


def test_a_box_without_a_segmentation_is_refused(tmp_path):
    put(tmp_path / "all.json", coco([], bbox=[1, 1, 2, 2]))
    with pytest.raises(DataError, match="is a box without a segmentation"):
        label_of(folder(tmp_path, "all.json"))


CVAT = """<?xml version="1.0"?><annotations><version>1.1</version>
<image id="0" name="i/a.png" width="10" height="8">
<polygon label="car" z_order="1" points="2.0,1.0;5.0,1.0;5.0,4.0;2.0,4.0"></polygon>
<box label="road" z_order="0" xtl="0" ytl="4" xbr="9" ybr="7"></box>
<mask label="car" z_order="2" rle="1,2,1" left="8" top="0" width="2" height="2"></mask>
<points label="car" z_order="0" points="1,1"></points>
</image></annotations>"""


def test_shapes_of_cvat_are_drawn_by_their_layers(tmp_path):
    put(tmp_path / "annotations.xml", CVAT)
    theirs = np.array(expected(CAR))
    theirs[4:8][theirs[4:8] == 0] = 2
    theirs[0, 9] = theirs[1, 8] = 1
    spec = folder(tmp_path, "annotations.xml")
    assert label_of(spec) == theirs.tolist()
    assert any("points or lines, which have no area" in note for note in check_data(spec).notes)


def packed(values, size):
    """The bits of Label Studio's brush, values one by one: as its own writer does where nothing repeats."""
    bits = f"{len(values):032b}{7:05b}" + f"{15:04b}" * 4
    at = 0
    while at < len(values):
        end = at
        while end + 1 < len(values) and values[end + 1] == values[at] and end - at < 60000:
            end += 1
        if end > at:
            bits += f"1{3:02b}{end - at:016b}{values[at]:08b}"
        else:
            bits += f"0{0:02b}{0:016b}{values[at]:08b}"
        at = end + 1
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def test_a_brush_of_label_studio_is_where_its_alpha_is():
    mask = np.random.default_rng(4).integers(0, 2, SIZE).astype(bool)
    rgba = np.stack([mask * 255] * 4, -1).astype(np.uint8)
    coded = packed(rgba.ravel().tolist(), SIZE)
    assert (brush(bytes(coded), SIZE) == mask).all()
    for wrong in (coded[: len(coded) // 2], coded[:3], packed([0] * 12, SIZE)):
        with pytest.raises(ValueError, match="brush"):
            brush(bytes(wrong), SIZE)


def test_a_brush_of_four_pixels_of_which_the_last_is_painted():
    """Packed as the source of label-studio-converter says; a file that Label Studio wrote was not at hand."""
    coded = packed([0] * 12 + [255] * 4, (1, 4))
    assert brush(bytes(coded), (1, 4)).tolist() == [[False, False, False, True]]


@pytest.mark.parametrize("minimal", [True, False])
def test_shapes_of_label_studio_are_percents_of_the_image(tmp_path, minimal):
    polygon = {"points": [[x * 10, y * 12.5] for x, y in BOX], "polygonlabels": ["car"]}
    mask = np.zeros(SIZE, bool)
    mask[7, 9] = True
    rle = packed(np.stack([mask * 255] * 4, -1).ravel().tolist(), SIZE)
    brushed = {"format": "rle", "rle": rle, "brushlabels": ["road"]}
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    name = "/data/upload/1/0a1b2c3d-a.png"
    if minimal:
        tasks = [{"image": name, "id": 1, "tag": [polygon | size, brushed | size]}]
    else:
        result = [
            {"type": "polygonlabels", "value": polygon} | size, {"type": "brushlabels", "value": brushed} | size,
            {"type": "choices", "value": {"choices": ["good"]}},
        ]  # fmt: skip
        tasks = [{"data": {"image": name}, "annotations": [{"result": result}]}]
    put(tmp_path / "export.json", tasks)
    theirs = np.array(expected(CAR))
    theirs[7, 9] = 2
    assert label_of(folder(tmp_path, "export.json")) == theirs.tolist()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("all.json", "{", "no annotations as labelme, COCO, CVAT"),
        ("all.json", "[1, 2]", "no annotations as"),
        ("all.json", '{"_via_img_metadata": {}}', "neither COCO's images"),
        ("all.json", json.dumps(labelme()), "is labelme's file of one image; write labels: as a path with {key}"),
        ("all.json", json.dumps(coco({"size": [8, 10], "counts": [3]})), "no annotations as"),
        ("all.json", json.dumps(coco({"size": [90000, 90000], "counts": [1]})), "no annotations as"),
        ("all.json", json.dumps(coco([[1, 2, 3]])), "no annotations as"),
        ("all.xml", "<annotations><image/></annotations>", "no annotations as"),
        ("all.xml", "<annotations><track/></annotations>", "for video"),
        ("all.xml", '<!DOCTYPE a [<!ENTITY b "b">]><annotations/>', "declares entities"),
        ("all.xml", "<a>", "no annotations as"),
        ("absent.json", None, "no such file of annotations"),
    ],
)
def test_a_file_that_is_none_of_them_is_refused_in_one_line(tmp_path, name, text, message):
    if text is not None:
        put(tmp_path / name, text)
    with pytest.raises(DataError) as caught:
        label_of(folder(tmp_path, name))
    assert message in str(caught.value) and "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("ending", ["png", "npy"])
def test_brushes_of_label_studio_say_the_way_out(tmp_path, ending):
    """Their names say no image; the JSON export does."""
    save(tmp_path / "l/task-1-annotation-2-by-1-tag-car-0.png", np.zeros(SIZE, np.uint8))
    (tmp_path / "l/task-1-annotation-2-by-1-tag-car-0.png").rename(
        tmp_path / f"l/task-1-annotation-2-by-1-tag-car-0.{ending}"
    )
    spec = folder(tmp_path, "l", {"a": {"id": 0}, "b": {"id": 1}})
    for export, way in (
        (None, "export JSON there"),
        ("l/all.json", "labels: l/all.json"),
        ("all.json", "labels: all.json"),
    ):
        if export is not None:
            put(tmp_path / export, [{"image": "a.png", "id": 1}])
        report = check_data(spec)
        assert not report.usable
        assert any("file of Label Studio, whose name says no image" in note and way in note for note in report.notes)
        if export is not None:
            (tmp_path / export).unlink()


def test_an_image_that_nobody_has_labelled_in_label_studio_has_no_label(tmp_path):
    """And is not taken for one of nothing but background."""
    put(tmp_path / "all.json", [{"data": {"image": "a.png"}, "annotations": []}])
    report = check_data(folder(tmp_path, "all.json"))
    assert (report.images, report.labels) == (1, 0)


def test_one_name_in_a_tool_is_not_the_label_of_two_images(tmp_path):
    spec = folder(tmp_path, "all.json")
    for sequence in ("s1", "s2"):
        save(tmp_path / sequence / "0.png", np.zeros((*SIZE, 3), np.uint8))
    told = yaml.safe_load((tmp_path / "x.yaml").read_text())
    told["splits"]["train"]["images"] = "**/{key}"
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    put(tmp_path / "all.json", [{"data": {"image": "0.png"}, "annotations": [{"result": []}]}])
    with pytest.raises(DataError, match=r"all\.json: 0\.png would be the label of s1/0\.png and of s2/0\.png"):
        open_data(spec).read(0, label=True)
