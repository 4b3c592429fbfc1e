"""Small data sets on disk, in the layouts and archives of the rows of DATASETS, and files that no reader accepts."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segda.data.labels.labellings import CAMVID_COLOURS, LABELLINGS
from segda.data.rows import DATASETS, Row
from segda.data.sets.dataset import DataSet
from segda.errors import DataError
from segda.scene import IGNORE

STARS = {
    "cityscapes-foggy": "{condition}",
    "cityscapes-foggy-dbf": "{condition}",
    "cityscapes-rain": "alpha_{condition}_beta_0.005_dropsize_0.01_pattern_1",
}
"""What stands for `*` in the names of a row's images."""

SIZE = (6, 9)
LAYOUTS = [
    (name, template, labelling)
    for name, row in DATASETS.items()
    if row.images
    for variant in row.variants()
    for template, labelling in variant.labels
]
WEATHER = {"clear": "daytime", "foggy": "night"}
"""Of SHIFT: the weather of its two small sequences, and their times of day."""


def save(path: Path, pixels: np.ndarray, palette: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
    picture.save(path)


def sixteen_bits(ids: np.ndarray) -> bytes:
    """A PNG as in SYNTHIA: red holds the ids, green counts objects. Written by hand: Pillow has no such kind."""
    channels = np.zeros((*ids.shape, 3), ">u2")
    channels[..., 0], channels[..., 1] = ids, 700 + np.arange(ids.shape[1])
    return png(*ids.shape[::-1], 16, rows=b"".join(b"\0" + row.tobytes() for row in channels))


def written_as(decoder: str, ids: np.ndarray) -> bytes:
    """The content of a label file that the decoder reads the ids from."""
    if decoder == "first channel":
        return sixteen_bits(ids)
    if decoder == "red channel":
        return encoded(np.stack([ids, 255 - ids, ids // 2, np.full_like(ids, 255)], -1))
    if decoder == "instances":
        plain = ids.astype(int)
        numbers = np.where((plain >= 24) & (plain <= 33), plain * 1000 + np.arange(ids.shape[1]), plain)
        rows = b"".join(b"\0" + row.tobytes() for row in numbers.astype(">u2"))
        return png(*ids.shape[::-1], 16, 0, rows)
    if decoder == "colours of CamVid":
        return encoded(np.array(list(CAMVID_COLOURS.values()), np.uint8)[ids])
    if decoder.startswith("polygons"):
        names = LABELLINGS["idd" if decoder.endswith("IDD") else "cityscapes"]
        objects = [
            {"label": names[id].replace("unlabelled", "unlabeled"), "polygon": [[x, y], [x, y], [x, y]]}
            for (y, x), id in np.ndenumerate(ids)
        ]
        return json.dumps({"imgHeight": ids.shape[0], "imgWidth": ids.shape[1], "objects": objects}).encode()
    assert decoder == "ids"
    return encoded(ids)


def settings(name: str, row: Row) -> list[tuple[str | None, dict[str, str]]]:
    """(condition, fields that tell it) of the images that are written of each split, two for each."""
    if name == "muses":
        return [(one, {"weather": one}) for one in ("clear", "fog", "rain", "snow")]
    if name == "cityscapes-rain":
        return [(one, {}) for one in ("0.01", "0.02", "0.03")]
    return [(one, {"condition": one}) for one in row.conditions] or [(None, {})]


def write_row(folder: Path, name: str, template: str, labelling: str) -> dict[tuple[str, str | None], dict]:
    """Two images a split and condition, with labels; (split, condition) -> stem -> (pixels, ids) as drawn.

    The images lie in the layout that the label's template is of.
    """
    row = next(one for one in DATASETS[name].variants() if (template, labelling) in one.labels)
    written: dict[tuple[str, str | None], dict] = {}
    decoder = row.decoders.get(template, "ids")
    ids = np.array([*LABELLINGS[labelling], *([] if decoder.startswith(("colours", "polygons")) else [IGNORE])])
    for split in (one for one in row.splits if one not in row.lists):
        for condition, known in settings(name, row):
            for k in range(2):
                image, star = row.images[0], STARS.get(name, "").format(condition=condition)
                key = f"{k + 1:05d}" if name == "gta5" else f"scene_{k}"
                if "{condition}" in image:
                    key = f"{condition}_{k}"
                elif condition is not None and "*" not in image and "weather" not in known:
                    key = row.conditions[condition][0].replace("*", f"_{k}")
                fields = {"split": row.split_folders.get(split, split), "city": "town", "key": key, "drive": str(k)}
                fields |= {"condition": condition, "sequence": f"GOPR{k}", "time": ("day", "night")[k], **known}
                path = image.format(**fields).replace("*", star)
                if "weather" in known:
                    path = path.replace(key, f"{known['weather']}_{k}")
                    fields["key"] = f"{known['weather']}_{k}"
                rng = np.random.default_rng(zlib.crc32(path.encode()))
                pixels = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
                # Of the label's own path: several images may share it.
                label_path = template.format(**fields)
                label = np.random.default_rng(zlib.crc32(label_path.encode())).choice(ids, SIZE).astype(np.uint8)
                save(folder / path, pixels)
                if path.endswith(".jpg"):  # what is read back is what its own decoder makes of it
                    pixels = cv2.imread(str(folder / path))[..., ::-1]
                if decoder == "ids":
                    save(folder / label_path, label, palette=k == 1)
                else:
                    (folder / label_path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / label_path).write_bytes(written_as(decoder, label))
                stem = "_".join((*(fields[one] for one in row.name_with), Path(path).stem))
                for one in (condition, *((fields["time"],) if "weather" in known else ())):
                    written.setdefault((split, one), {})[stem] = pixels, label
        _write_lists(folder, name, row, split, written)
    return written


def _write_lists(folder: Path, name: str, row: Row, split: str, written: dict) -> None:
    """The lists of a row, each of the first of its images; what they name is added to what was written."""
    scenes = written[split, next(condition for of, condition in written if of == split)]
    first = next(iter(scenes))
    if name == "gta5":
        (folder / "split.mat").write_bytes(matlab({"trainIds": [1], "valIds": [2], "testIds": [1, 2]}))
        one, two = scenes
        for part, stems in (("train", [one]), ("val", [two]), ("test", [one, two])):
            written[f"official-{part}", None] = {stem: scenes[stem] for stem in stems}
    elif name == "shift":
        table = folder / row.of(split, row.lists["clear"].file)
        lines = [f"GOPR{k},{weather},{time}" for k, (weather, time) in enumerate(WEATHER.items())]
        table.write_text("\n".join(["video,start_weather_coarse,start_timeofday_coarse", *lines]))
        for stem, (weather, time) in zip(sorted(scenes), WEATHER.items(), strict=True):
            written[split, weather] = written[split, time] = {stem: scenes[stem]}
    elif name == "bdd100k":
        with (folder / row.lists["night"].file).open("a") as file:
            file.write(f"bdd100k/images/10k/{split}/{first}.jpg\n\n")
        written[split, "night"] = {first: scenes[first]}
    elif "refined" in row.lists:
        (folder / row.lists["refined"].file).write_text(f"leftImg8bit/{split}/town/scene_0_leftImg8bit.png\n")
        every = {stem: scene for (of, _), some in written.items() if of == split for stem, scene in some.items()}
        written[split, "refined"] = {stem: scene for stem, scene in every.items() if stem.startswith("scene_0")}


def matlab(variables: dict[str, list[int]], compressed: bool = True) -> bytes:
    """A MATLAB 5 file with each variable as a column of 16-bit numbers, as `save` writes it."""

    def element(kind: int, content: bytes) -> bytes:
        return struct.pack("<II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    content = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for name, values in variables.items():
        inner = element(6, struct.pack("<II", 11, 0)) + element(5, struct.pack("<ii", len(values), 1))
        inner += element(1, name.encode()) + element(4, struct.pack(f"<{len(values)}H", *values))
        whole = element(14, inner)
        packed = zlib.compress(whole)
        content += struct.pack("<II", 15, len(packed)) + packed if compressed else whole
    return content


ZIPPED = {
    "acdc": "",
    "bdd100k": "bdd100k/",
    "camvid-32": "",
    "cityscapes": "",
    "dark-zurich": "",
    "gta5": "",
    "mapillary": "",
    "muses": "muses/",
    "shift": "",
}
"""Rows that are published as zip archives, and the folder that everything in them is in."""


def pack(folder: Path, name: str) -> list[Path]:
    """Moves the files of a row into its archives, as they are published."""
    made = []
    for archive in DATASETS[name].archives:
        if not archive.name.endswith(".zip"):
            continue
        path = folder / archive.name.replace("[01][0-9]", "01").replace("*", "2.0")
        files = [one for one in sorted(folder.rglob("*")) if one.is_file() and one.suffix not in (".zip", ".csv")]
        inside = [one for one in files if one.relative_to(folder).as_posix().startswith(archive.holds)]
        if not inside:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        flat = name == "shift" or path.name == "LabeledApproved_full.zip"
        with zipfile.ZipFile(path, "a") as packed:
            for k, one in enumerate(inside):
                member = one.relative_to(folder).as_posix()
                member = member.removeprefix(archive.holds) if flat else ZIPPED.get(name, "") + member
                packed.write(one, member, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[k % 2])
                one.unlink()
        made.append(path)
    return list(dict.fromkeys(made))


def refused(data: DataSet, path: Path, i: int = 0) -> str:
    """The message of the DataError that reading scene i raises; one line that names the file."""
    with pytest.raises(DataError) as caught:
        data.read(i, label=True)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and "; " in message
    return message


def encoded(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind) if mode else Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def png(width: int, height: int, bits: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG written by hand: its header and `rows` as its pixels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + pixels + chunk(b"IEND", b"")


NOISE = np.random.default_rng(5).integers(0, 256, (48, 64, 3)).astype(np.uint8)
