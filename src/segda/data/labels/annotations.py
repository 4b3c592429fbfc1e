"""Files of annotation tools: what they say of each image, as drawings (shapes.py).

    labelme          a JSON a image, `{shapes: [{label, points, shape_type}]}`; polygons, boxes, circles, masks
    Cityscapes       a JSON an image, `{objects: [{label, polygon}]}`
    COCO             one JSON, `{images, annotations, categories}`; polygons, and masks in its run lengths (pycocotools)
    Label Studio     one JSON, its export "JSON" or "JSON-MIN"; polygons, boxes, ellipses, brushes (brush_rle.py)
    CVAT             one XML, its export "CVAT for images"; polygons, boxes, ellipses, masks

Nothing in them is run. XML with a document type, by which a few bytes can unpack to any number, is refused.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from segda.data.files.archives import read_bytes
from segda.data.files.images import MEGAPIXELS
from segda.data.labels.brush_rle import brush
from segda.data.labels.shapes import Drawing, Point, Shape, box, ellipse, rotated
from segda.errors import DataError, ImageError
from segda.ground.safe_yaml import json_values

SUFFIXES = (".json", ".xml")
"""What names of such files end with."""

BRUSHES = re.compile(r"task-\d+-annotation-\d+-by-.*")
"""What Label Studio calls its PNGs and arrays of brushes, in which no image is named."""

WRONG = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, binascii.Error)
"""What a file raises that is not as its tool writes it."""

Drawings = dict[str, Drawing]
"""The image's name, as the tool has it -> what was drawn in it."""


def read_drawing(path: Path) -> Drawing:
    """What a file of one image says. ImageError for a file that is none."""
    try:
        tree = json_values(read_bytes(path))
        if isinstance(tree, Mapping) and "shapes" in tree:
            return _checked(path, _labelme(tree))
        if isinstance(tree, Mapping) and "objects" in tree:
            return _checked(path, _cityscapes(tree))
    except DataError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; restore it", path) from None
    except WRONG as error:
        raise _no_annotations(path, error) from None
    if isinstance(tree, (list, dict)) and ("annotations" in tree or isinstance(tree, list)):
        raise DataError(f"{path}: is a file of many images' annotations; write labels: {path.name} in the YAML file")
    raise _no_annotations(path, ValueError("neither shapes, as labelme has them, nor objects"))


def exports_beside(folder: Path) -> list[Path]:
    """The JSON exports of Label Studio in a folder and in the one above."""
    there = [path for place in (folder, folder.parent) if place.is_dir() for path in sorted(place.glob("*.json"))]
    return [path for path in there if _is_export(path)]


def _is_export(path: Path) -> bool:
    """Whether a file is a list of tasks, each with its image."""
    try:
        tree = json_values(read_bytes(path))
    except (OSError, ValueError):
        return False
    return (
        isinstance(tree, list)
        and bool(tree)
        and isinstance(tree[0], Mapping)
        and not {"data", "image"}.isdisjoint(tree[0])
    )


def read_drawings(path: Path) -> Drawings:
    """What a file of many images says, read once a process. ImageError for a file that is none."""
    try:
        found = path.stat()
    except OSError:
        raise ImageError(f"{path}: no such file of annotations; correct labels in the YAML file", path) from None
    return _read(path, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> Drawings:
    try:
        found: dict[str, Drawing] = {}
        for name, drawing in _all(path):
            if name in found:
                drawing = Drawing(drawing.size, (*found[name].shapes, *drawing.shapes), found[name].bare + drawing.bare)
            found[name] = _checked(path, drawing)
        return found
    except DataError:
        raise
    except (*WRONG, ElementTree.ParseError) as error:
        raise _no_annotations(path, error) from None


def _all(path: Path) -> Iterator[tuple[str, Drawing]]:
    content = read_bytes(path)
    if path.suffix.lower() == ".xml":
        if b"<!DOCTYPE" in content or b"<!ENTITY" in content:
            raise ValueError("it declares entities, which no tool does")
        return _cvat(ElementTree.fromstring(content))
    tree = json_values(content)
    if isinstance(tree, Mapping) and {"images", "annotations", "categories"} <= tree.keys():
        return _coco(path, tree)
    if isinstance(tree, list):
        return _label_studio(tree)
    if isinstance(tree, Mapping) and "shapes" in tree:
        raise DataError(
            f"{path}: is labelme's file of one image; write labels: as a path with {{key}}, as {{key}}.json"
        )
    raise ValueError("neither COCO's images, annotations and categories, nor Label Studio's list of tasks")


def _no_annotations(path: Path, error: Exception) -> ImageError:
    why = f"{type(error).__name__}: {' '.join(str(error).split()):.100}"
    kinds = "labelme, COCO, CVAT (for images) or Label Studio"
    return ImageError(f"{path}: no annotations as {kinds} write them ({why}); export them again", path)


def _checked(path: Path, drawing: Drawing) -> Drawing:
    if drawing.size is not None and not 0 < drawing.size[0] * drawing.size[1] <= MEGAPIXELS * 1_000_000:
        height, width = drawing.size
        raise DataError(f"{path}: a picture of {width}x{height} cannot be; export the annotations again")
    return drawing


def _points(pairs: Any) -> tuple[Point, ...]:
    return tuple((float(x), float(y)) for x, y in pairs)


def _ring(flat: Sequence[Any]) -> tuple[Point, ...]:
    """x, y, x, y, ... -> corners."""
    return tuple((float(x), float(y)) for x, y in zip(flat[::2], flat[1::2], strict=True))


# One image a file


def _labelme(tree: Mapping[str, Any]) -> Drawing:
    height, width = tree.get("imageHeight"), tree.get("imageWidth")
    shapes, bare = [], 0
    for one in tree["shapes"]:
        name, kind, points = str(one["label"]), one.get("shape_type") or "polygon", _points(one["points"])
        if kind == "polygon":
            shapes.append(Shape(name, (points,)))
        elif kind == "rectangle":
            across, down = [x for x, _ in points], [y for _, y in points]
            shapes.append(Shape(name, (box(min(across), min(down), max(across), max(down)),)))
        elif kind == "circle":
            (x, y), (edge_x, edge_y) = points
            radius = float(np.hypot(edge_x - x, edge_y - y))
            shapes.append(Shape(name, (ellipse(x, y, radius, radius),)))
        elif kind == "mask":
            with Image.open(io.BytesIO(base64.b64decode(one["mask"])), formats=["PNG"]) as picture:
                if picture.width * picture.height > MEGAPIXELS * 1_000_000:
                    raise ValueError("a mask that is larger than any picture")
                mask = np.array(picture) > 0
            shapes.append(Shape(name, mask=mask, at=(round(points[0][0]), round(points[0][1]))))
        elif kind in ("point", "points", "line", "linestrip"):
            bare += 1
        else:
            raise ValueError(f"a shape of the kind {kind!r:.20}, which is not read: draw it as a polygon")
    return Drawing(None if height is None or width is None else (int(height), int(width)), tuple(shapes), bare)


def _cityscapes(tree: Mapping[str, Any]) -> Drawing:
    shapes = [Shape(str(one["label"]), (_points(one["polygon"]),)) for one in tree["objects"] if not one.get("deleted")]
    return Drawing((int(tree["imgHeight"]), int(tree["imgWidth"])), tuple(shapes))


# Many images a file


def _coco(path: Path, tree: Mapping[str, Any]) -> Iterator[tuple[str, Drawing]]:
    names = {one["id"]: str(one["name"]) for one in tree["categories"]}
    images = {one["id"]: one for one in tree["images"]}
    of: dict[Any, list[Shape]] = {id: [] for id in images}
    for one in tree["annotations"]:
        name, where = names[one["category_id"]], one.get("segmentation")
        if one["image_id"] not in of:
            raise ValueError(f"an annotation of image {one['image_id']}, which is none of its images")
        if not where:
            raise DataError(
                f"{path}: annotation {one.get('id')} ({name}) is a box without a segmentation, which says no pixels; "
                "annotate areas, or leave boxes out of the export"
            )
        if isinstance(where, Mapping):
            of[one["image_id"]].append(Shape(name, mask=_run_lengths(path, where)))
        else:
            of[one["image_id"]].append(Shape(name, tuple(_ring(flat) for flat in where)))
    for id, one in images.items():
        yield str(one["file_name"]), Drawing((int(one["height"]), int(one["width"])), tuple(of[id]))


def _run_lengths(path: Path, coded: Mapping[str, Any]) -> np.ndarray:
    """(H, W) bool of COCO's run lengths, counts as a list or as its text."""
    try:
        from pycocotools import mask as coco  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(
            f"{path}: has masks in COCO's run lengths, which pycocotools reads; pip install 'segda[coco]'"
        ) from None
    height, width = coded["size"]
    if not 0 < height * width <= MEGAPIXELS * 1_000_000:
        raise ValueError(f"a mask of {width}x{height}")
    if isinstance(coded["counts"], list):
        if sum(coded["counts"]) != height * width or min(coded["counts"]) < 0:
            raise ValueError("run lengths that do not fill their mask")
        coded = coco.frPyObjects(dict(coded), height, width)
    with warnings.catch_warnings(
        action="ignore", category=DeprecationWarning
    ):  # of numpy, about pycocotools' own arrays
        return coco.decode(dict(coded)).astype(bool)


def _label_studio(tasks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Drawing]]:
    for task in tasks:
        if "data" in task:
            every = [
                done for done in task.get("annotations", task.get("completions", ())) if not done.get("was_cancelled")
            ]
            if not every:  # nobody has labelled it
                continue
            results = [one for done in every[-1:] for one in done["result"]]
            texts = [value for value in task["data"].values() if isinstance(value, str)]
            if not texts:
                raise ValueError("a task without an image")
            where = texts[0]
        else:  # JSON-MIN: the results stand under the name of the tag
            where = str(task["image"])
            results = [
                {"value": one, "type": _kind(one), **one} for value in task.values() if isinstance(value, list)
                for one in value if isinstance(one, Mapping)
            ]  # fmt: skip
        shapes: list[Shape] = []
        size: Size | None = None
        bare = 0
        for one in results:
            if one.get("type") not in LABEL_STUDIO:
                bare += one.get("type") in ("keypointlabels", "vectorlabels")
                continue
            if one.get("image_rotation"):
                raise ValueError("an image that was turned in the tool")
            size = (int(one["original_height"]), int(one["original_width"]))
            value = one["value"]
            names = value.get(one["type"]) or []
            if len(names) != 1:
                raise ValueError(f"a shape with {len(names)} labels, where one is needed")
            shapes.append(LABEL_STUDIO[one["type"]](str(names[0]), value, size))
        yield _uploaded(where), Drawing(size, tuple(shapes), bare)


def _kind(value: Mapping[str, Any]) -> str | None:
    return next((kind for kind in (*LABEL_STUDIO, "keypointlabels") if kind in value), None)


def _uploaded(where: str) -> str:
    """The name of an uploaded image: without the folders of the server, and the eight letters that it puts before."""
    name = PurePosixPath(where.partition("?d=")[2] or where.partition("?")[0]).name
    before, dash, rest = name.partition("-")
    return rest if dash and len(before) == 8 and all(c in "0123456789abcdef" for c in before) else name


Size = tuple[int, int]


def _ls_polygon(name: str, value: Mapping[str, Any], size: Size) -> Shape:
    corners = _points(value["points"])
    return Shape(name, (tuple((x * size[1] / 100, y * size[0] / 100) for x, y in corners),))


def _ls_box(name: str, value: Mapping[str, Any], size: Size) -> Shape:
    left, top = value["x"] * size[1] / 100, value["y"] * size[0] / 100
    right, bottom = left + value["width"] * size[1] / 100, top + value["height"] * size[0] / 100
    return Shape(name, (box(left, top, right, bottom, value.get("rotation", 0)),))


def _ls_ellipse(name: str, value: Mapping[str, Any], size: Size) -> Shape:
    x, y = value["x"] * size[1] / 100, value["y"] * size[0] / 100
    across, down = value["radiusX"] * size[1] / 100, value["radiusY"] * size[0] / 100
    return Shape(name, (ellipse(x, y, across, down, value.get("rotation", 0)),))


def _ls_brush(name: str, value: Mapping[str, Any], size: Size) -> Shape:
    if value.get("format") != "rle":
        raise ValueError(f"a brush in the format {value.get('format')!r}")
    return Shape(name, mask=brush(bytes(value["rle"]), size))


LABEL_STUDIO: dict[str, Callable[[str, Mapping[str, Any], Size], Shape]] = {
    "polygonlabels": _ls_polygon,
    "rectanglelabels": _ls_box,
    "ellipselabels": _ls_ellipse,
    "brushlabels": _ls_brush,
}
"""Label Studio's kinds of results that have an area; its places are percents of the image."""


def _cvat(root: ElementTree.Element) -> Iterator[tuple[str, Drawing]]:
    if root.tag != "annotations" or root.find("track") is not None:
        raise ValueError('no export "CVAT for images"' + (" (but for video)" if root.find("track") is not None else ""))
    for image in root.iter("image"):
        size = int(image.attrib["height"]), int(image.attrib["width"])
        ordered = sorted(image, key=lambda one: int(one.get("z_order", 0)))
        shapes = [CVAT[one.tag](one, size) for one in ordered if one.tag in CVAT]
        bare = sum(one.tag in ("points", "polyline", "skeleton") for one in image)
        yield image.attrib["name"], Drawing(size, tuple(shapes), bare)


def _cvat_polygon(one: ElementTree.Element, size: Size) -> Shape:
    return Shape(one.attrib["label"], (_points(pair.split(",") for pair in one.attrib["points"].split(";")),))


def _cvat_box(one: ElementTree.Element, size: Size) -> Shape:
    left, top, right, bottom = (float(one.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    centre = (left + right) / 2, (top + bottom) / 2  # CVAT turns boxes about it
    ring = rotated(box(left, top, right, bottom), centre, float(one.get("rotation", 0)))
    return Shape(one.attrib["label"], (ring,))


def _cvat_ellipse(one: ElementTree.Element, size: Size) -> Shape:
    x, y, across, down = (float(one.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
    return Shape(one.attrib["label"], (ellipse(x, y, across, down, float(one.get("rotation", 0))),))


def _cvat_mask(one: ElementTree.Element, size: Size) -> Shape:
    """Runs of pixels outside and inside by turns, row by row of the mask's box."""
    left, top, width, height = (int(one.attrib[key]) for key in ("left", "top", "width", "height"))
    if not 0 < width * height <= size[0] * size[1]:
        raise ValueError(f"a mask of {width}x{height} in a picture of {size[1]}x{size[0]}")
    runs = np.array([int(run) for run in one.attrib["rle"].split(",")])
    if runs.min() < 0 or runs.sum() != width * height:
        raise ValueError("run lengths that do not fill their mask")
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return Shape(one.attrib["label"], mask=inside.reshape(height, width), at=(left, top))


CVAT: dict[str, Callable[[ElementTree.Element, Size], Shape]] = {
    "polygon": _cvat_polygon,
    "box": _cvat_box,
    "ellipse": _cvat_ellipse,
    "mask": _cvat_mask,
}
"""CVAT's shapes that have an area."""
