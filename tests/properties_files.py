"""Files of images, labels and weights, and archives of them: read as their headers say, or refused."""

from __future__ import annotations

import io
import json
import math
import zipfile
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save as safetensors

from drawn import REFUSED, attempt, changed, damaged, named, put
from layouts import matlab, written_as
from segda.data.files.archives import members, read_bytes
from segda.data.files.images import DECODERS, header, read_ids, read_image
from segda.data.files.photos import facts_of, read_photo
from segda.data.labels.annotations import read_drawing, read_drawings
from segda.data.labels.own_labels import OwnColours, OwnIds
from segda.data.labels.shapes import Names, draw
from segda.data.rows import Listed
from segda.data.sets.lists import READERS, listed
from segda.data.weather.stereo import read_camera
from segda.networks.weights.load import read
from segda.scene import IGNORE

# Images and labels

IDS = np.arange(12 * 9, dtype=np.uint8).reshape(9, 12) % 34


@cache
def pictures() -> dict[str, bytes]:
    """Files of every kind that images and labels are, and of kinds that are refused."""
    rgb = np.random.default_rng(1).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    picture = Image.fromarray(rgb)
    made = {
        "rgb": (picture, "PNG", {}),
        "rgba": (picture.convert("RGBA"), "PNG", {}),
        "palette": (picture.convert("P"), "PNG", {}),
        "one bit": (picture.convert("1"), "PNG", {}),
        "16 bits": (Image.fromarray(IDS.astype(np.uint16) * 700), "PNG", {}),
        "ids": (Image.fromarray(IDS), "PNG", {}),
        "animation": (picture, "PNG", {"save_all": True, "append_images": [picture.rotate(90)]}),
        "jpeg": (picture, "JPEG", {}),
        "progressive": (picture, "JPEG", {"progressive": True}),
        "cmyk": (picture.convert("CMYK"), "JPEG", {}),
        "grey": (picture.convert("L"), "JPEG", {}),
    }
    found = {}
    for name, (each, kind, options) in made.items():
        file = io.BytesIO()
        each.save(file, kind, **options)
        found[name] = file.getvalue()
    for decoder in ("first channel", "instances", "colours of CamVid"):
        found[decoder] = written_as(decoder, IDS % 32)
    return found


def an_image_is_read_as_its_header_says_or_refused(content: bytes) -> None:
    path = put("image.png", content)
    image = attempt(read_image, path)
    if image is not REFUSED:
        head = header(content)
        assert image.dtype == torch.uint8 and tuple(image.shape) == (3, head.height, head.width)


def a_label_is_read_as_its_header_says_or_refused(content: bytes, decoder: str) -> None:
    ids = attempt(read_ids, put("label.png", content), decoder)
    if ids is not REFUSED:
        head = header(content)
        assert ids.dtype == np.uint8 and ids.shape == (head.height, head.width)


PIXEL_DECODERS = [name for name in DECODERS if not name.startswith("polygons")]


def polygon_trees() -> list[Any]:
    return [json.loads(written_as("polygons of Cityscapes", IDS[:3, :3] % 20))]


def polygons_are_drawn_or_refused(tree: Any) -> None:
    ids = attempt(read_ids, put("polygons.json", json.dumps(tree)), "polygons of Cityscapes")
    if ids is not REFUSED:
        assert ids.shape == (int(tree["imgHeight"]), int(tree["imgWidth"]))


@cache
def zips() -> dict[str, bytes]:
    found = {}
    for kind in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            archive.writestr("a/b.png", pictures()["rgb"])
            archive.writestr("empty", b"")
        found[str(kind)] = file.getvalue()
    return found


def a_zip_archive_is_read_or_refused(content: bytes) -> None:
    path = put("files.zip", content)
    names = attempt(members, path)
    for name in ("a/b.png", *(() if names is REFUSED else names[:3])):
        found = attempt(read_bytes, path / name, also=(OSError,))
        assert found is REFUSED or isinstance(found, bytes)


@cache
def matlabs() -> dict[str, bytes]:
    return {str(packed): matlab({"trainIds": [1, 2, 3], "other": [4]}, packed) for packed in (True, False)}


def a_list_of_images_is_read_or_refused(content: bytes, reader: str) -> None:
    kind = Listed("x", by="key", reader=reader, argument="trainIds" if "MATLAB" in reader else "video=a")
    names = attempt(listed, put("list", content), kind, "its page")
    assert names is REFUSED or all(isinstance(name, str) for name in names)


CAMERA = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000, "u0": 1024, "v0": 512}}


def a_camera_is_of_finite_numbers_or_refused(tree: Any) -> None:
    camera = attempt(read_camera, put("camera.json", json.dumps(tree)))
    if camera is not REFUSED:
        assert all(0 < value < math.inf for value in (camera.fx, camera.u0, camera.v0, camera.baseline))


@cache
def small_labels() -> dict[str, bytes]:
    return {"ids": written_as("ids", IDS % 11), "classes and none": written_as("ids", np.where(IDS < 9, IDS, IGNORE))}


# Weights


@cache
def weights() -> dict[str, bytes]:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2)}
    wrapped = {
        "state_dict": tensors,
        "meta": {"epoch": 3, "mIoU": np.float64(0.5)},
        "optimizer": {"state": {0: tensors}},
    }
    found = {}
    for name, zipped in (("new", True), ("legacy", False)):
        file = io.BytesIO()
        torch.save(wrapped, file, _use_new_zipfile_serialization=zipped)
        found[name] = file.getvalue()
    return found


@cache
def pickles() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(weights()["new"])) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")}


def within_torchs_archive(pickle: bytes) -> bytes:
    """The archive of torch with another pickle in it, and the checksums that it should have."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(weights()["new"])) as archive, zipfile.ZipFile(file, "w") as copy:
        for name in archive.namelist():
            copy.writestr(name, pickle if name.endswith("data.pkl") else archive.read(name))
    return file.getvalue()


def weights_are_plain_tensors_or_refused(content: bytes, name: str = "weights.pth") -> None:
    found = attempt(read, put(name, content))
    if found is not REFUSED:
        for tensor in found.tensors.values():
            assert tensor.layout == torch.strided and tensor.device.type == "cpu"
            assert tensor.numel() * tensor.element_size() <= max(len(content), 1)


def weights_with_a_damaged_pickle_are_plain_tensors_or_refused(pickle: bytes) -> None:
    weights_are_plain_tensors_or_refused(within_torchs_archive(pickle))


def a_safetensors_file_holds_plain_tensors_or_is_refused(content: bytes) -> None:
    weights_are_plain_tensors_or_refused(content, "weights.safetensors")


@cache
def tensor_files() -> dict[str, bytes]:
    tensors = {"a.weight": torch.arange(6.0).reshape(2, 3), "b.bias": torch.ones(2, dtype=torch.float16)}
    return {"one": safetensors(tensors, {"step": "5", "network": '{"name": "x"}'})}


# Somebody's own


@cache
def own_pictures() -> dict[str, bytes]:
    """The same, and of the kinds that only people's own files are."""
    grey = Image.fromarray(IDS)
    side = Image.Exif()
    side[0x0112] = 6
    found = dict(pictures())
    for name, picture, kind, options in (
        ("tiff", grey, "TIFF", {"exif": side}), ("lzw", grey, "TIFF", {"compression": "tiff_lzw"}),
        ("thermal", Image.fromarray(IDS.astype(np.float32)), "TIFF", {}), ("bmp", grey, "BMP", {}),
        ("webp", grey.convert("RGB"), "WEBP", {"exif": side}), ("gif", grey, "GIF", {}),
    ):  # fmt: skip
        file = io.BytesIO()
        picture.save(file, kind, **options)
        found[name] = file.getvalue()
    file = io.BytesIO()
    np.save(file, IDS.astype(np.int64))
    return found | {"array": file.getvalue()}


def a_photograph_is_read_as_its_header_says_or_refused(content: bytes, turned: bool) -> None:
    path = put("photo.png", content)
    facts, image = attempt(facts_of, path), attempt(read_photo, path, turned)
    if image is not REFUSED:
        assert image.dtype == torch.uint8 and tuple(image.shape) == (3, *facts.shown(turned))


def a_label_of_ones_own_is_read_or_refused(content: bytes, ending: str) -> None:
    for decoder in (OwnIds(1), OwnColours((((0, 0, 0), 0), ((9, 9, 9), IGNORE)))):
        ids = attempt(decoder, put(f"own{ending}", content))
        assert ids is REFUSED or (ids.ndim == 2 and ids.dtype in (np.uint8, np.uint16))


def annotations() -> list[Any]:
    box = [[1, 1], [4, 1], [4, 3]]
    size = {"original_width": 9, "original_height": 6}
    brush = {"format": "rle", "rle": [0, 0, 0, 216, 58], "brushlabels": ["car"]}
    return [
        {"shapes": [{"label": "car", "points": box, "shape_type": kind} for kind in ("polygon", "circle", "rectangle")],
         "imageHeight": 6, "imageWidth": 9},
        {"images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 9}], "categories": [{"id": 2, "name": "car"}],
         "annotations": [{"image_id": 1, "category_id": 2, "segmentation": where}
                         for where in ([[1, 1, 4, 1, 4, 3]], {"size": [6, 9], "counts": [20, 34]})]},
        [{"data": {"image": "a.png"}, "annotations": [{"result": [
            {"type": "polygonlabels", "value": {"points": box, "polygonlabels": ["car"]}} | size,
            {"type": "brushlabels", "value": brush} | size,
        ]}]}],
    ]  # fmt: skip


def annotations_are_drawn_or_refused(tree: Any) -> None:
    path = put("annotations.json", json.dumps(tree))
    read_drawings.__globals__["_read"].cache_clear()  # files that follow each other this fast may have one time
    one, many = attempt(read_drawing, path), attempt(read_drawings, path)
    for drawing in (*([] if one is REFUSED else [one]), *({} if many is REFUSED else many).values()):
        ids = attempt(draw, drawing, drawing.size or (6, 9), Names({"car": 1}, 0), "a file")
        assert ids is REFUSED or ids.shape == (drawing.size or (6, 9))


FILES = named(
    (a_photograph_is_read_as_its_header_says_or_refused, damaged(own_pictures), st.booleans()),
    (a_label_of_ones_own_is_read_or_refused, damaged(own_pictures), st.sampled_from((".png", ".npy"))),
    (annotations_are_drawn_or_refused, changed(annotations)),
    (an_image_is_read_as_its_header_says_or_refused, damaged(pictures)),
    (a_label_is_read_as_its_header_says_or_refused, damaged(pictures), st.sampled_from(PIXEL_DECODERS)),
    (polygons_are_drawn_or_refused, changed(polygon_trees)),
    (a_zip_archive_is_read_or_refused, damaged(zips)),
    (
        a_list_of_images_is_read_or_refused,
        damaged(matlabs) | st.binary(max_size=60),
        st.sampled_from(sorted(READERS)),
    ),
    (a_camera_is_of_finite_numbers_or_refused, changed(lambda: [CAMERA])),
    (weights_are_plain_tensors_or_refused, damaged(weights)),
    (weights_with_a_damaged_pickle_are_plain_tensors_or_refused, damaged(pickles)),
    (a_safetensors_file_holds_plain_tensors_or_is_refused, damaged(tensor_files)),
)
