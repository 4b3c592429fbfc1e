"""`segda check-data`: is this data set whole, and what is in it: counts, sizes, class shares, faults, a picture.

Every file is read; faults are collected, not stopped at. A data set without any label file is usable as a target only.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.data.labels.spaces import UNKNOWN, Space
from segda.data.sets.datasets import DataSet, file_name, open_data
from segda.errors import DataError
from segda.ground.atomic import atomic_write
from segda.ground.progress import track
from segda.ground.safe_yaml import read_json

LISTED = 20
"""Faults of one kind that are printed; the report holds all of them."""


@dataclass
class DataReport:
    """What check_data found.

    faults: kind -> one line for each, all of them.
    sizes: (width, height) -> images.
    class_counts: (C + 1,) pixels of each class over all readable labels, the ignored ones last.
    seen: (C + 1,) images with the class.
    notes: what the public data set holds besides, and where it comes from; no faults.
    """

    spec: str
    where: str
    classes: tuple[str, ...]
    images: int
    labels: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    class_counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    faults: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    sheet: Path | None = None

    @property
    def usable(self) -> bool:
        return not self.faults

    @property
    def verdict(self) -> str:
        if not self.usable:
            return f"unusable: {sum(map(len, self.faults.values()))} faults"
        if not self.labels:
            return "usable as a target in training; no labels, so not as a source or for evaluation"
        return "usable"


def check_data(
    spec: str,
    root: Path | None = None,
    space: Space | None = None,
    out: Path | None = None,
) -> DataReport:
    """Read every file of `name:split[:condition]` and report on it; with `out`, draw a contact sheet into that folder.

    RecipeError or DataError only if there is nothing to read: unknown name, missing folder, empty split.
    """
    data = open_data(spec, root, space)
    classes = data.space.classes
    where = ", ".join("drawn" if part.row.rendered else str(part.folder) for part in data.parts)
    report = DataReport(spec, where, classes, len(data))
    report.class_counts, report.seen = np.zeros((2, len(classes) + 1), np.int64)
    labelled = [data.labelled(i) for i in range(len(data))]
    report.labels = sum(labelled)
    if report.labels:
        for i in np.flatnonzero(~np.array(labelled)):
            _add(report, "images without label", f"{data.image_path(i)} (looked for {data.label_path(i)})")
    for path in data.labels_without_image():
        _add(report, "labels without image", str(path))
    at = 0
    for part in data.parts:
        report.notes += _notes(part, sum(labelled[at : at + len(part)]))
        at += len(part)
        for line in _other_names(part):
            _add(report, "ids of another meaning", line)
    sound = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        futures = [pool.submit(_look, data, i, labelled[i]) for i in range(len(data))]
        try:
            for i, future in enumerate(track(futures, f"reading {spec}")):
                found = future.result()
                for kind, line in found.faults:
                    _add(report, kind, line)
                if found.size is not None:
                    report.sizes[found.size] += 1
                if found.class_counts is not None:
                    report.class_counts += found.class_counts
                    report.seen += found.class_counts > 0
                if not found.faults:
                    sound.append(i)
        finally:
            for future in futures:
                future.cancel()
    if out is not None and sound:
        report.sheet = out / f"{file_name(spec)}.png"
        chosen = [sound[k] for k in np.linspace(0, len(sound) - 1, min(SHEET_IMAGES, len(sound))).astype(int)]
        picture = contact_sheet(data, chosen, [labelled[i] for i in chosen], report)
        with atomic_write(report.sheet) as partial:
            picture.save(partial, format="PNG")
    return report


def _other_names(data: DataSet) -> list[str]:
    """Where the data set's own list of names contradicts ours: one line for each id.

    Names are compared without case, as the authors of ESL do, who build their table from this file.
    """
    path = next((path for name in data.row.id_names if (path := data.folder / name).is_file()), None)
    if path is None:
        return []
    try:
        theirs = [entry["readable"] for entry in read_json(path)["labels"]]
        theirs = [name.lower() for name in theirs]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return [f"{path} is no list of names ({type(error).__name__}: {error})"]
    ours = [name.lower() for name in data.row.names(data.row.labels[0][1]).values()]
    pairs = enumerate(zip_longest(theirs, ours, fillvalue="nothing"))
    return [f"{path}: id {id} is {name}, here {known}" for id, (name, known) in pairs if name != known]


def _notes(data: DataSet, labels: int) -> list[str]:
    """How many images the public data set has, and which archive is missing where labels are."""
    notes = []
    wanted = data.split if data.condition is None else f"{data.split}:{data.condition}"
    if (known := data.row.counts.get(wanted)) is not None:
        there = "as many as here" if known == len(data) else f"here are {len(data)}"
        notes.append(f"{data.spec}: {known} images in the public data set, {there}")
    if labels < len(data) and data.row.labels:
        notes.append(f"{data.spec}: labels of {labels} of {len(data)} images; for more, {data.labels_from()}")
    return notes


def _add(report: DataReport, kind: str, line: str) -> None:
    report.faults.setdefault(kind, []).append(line)


@dataclass
class _Look:
    """What one image and its label are like; size and class_counts are None where they cannot be known."""

    size: tuple[int, int] | None = None
    class_counts: np.ndarray | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)


def _look(data: DataSet, i: int, labelled: bool) -> _Look:
    found = _Look()
    try:
        height, width = data.read(i, label=False).image.shape[1:]
        found.size = (width, height)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
    if not labelled:
        return found
    try:
        ids, table = data.label_ids(i)
    except DataError as error:
        found.faults.append(("unreadable files", str(error)))
        return found
    name = data.names[i] if data.at(i)[0].row.rendered else str(data.label_path(i))
    if found.size is not None and ids.shape != found.size[::-1]:
        sizes = f"{ids.shape[1]}x{ids.shape[0]}, its image {found.size[0]}x{found.size[1]}"
        found.faults.append(("sizes that differ", f"{name} is {sizes}"))
    counts = np.bincount(ids.ravel(), minlength=256)
    unknown = np.flatnonzero((table == UNKNOWN) & (counts > 0))
    if len(unknown):
        listed = ", ".join(f"{id} ({counts[id]} pixels)" for id in unknown)
        found.faults.append(("unknown ids", f"{name}: {listed}"))
    found.class_counts = data.by_class(counts, table)
    return found


def render(report: DataReport) -> Group:
    """The report for a terminal."""
    sizes = ", ".join(f"{count} of {w}x{h}" for (w, h), count in report.sizes.most_common(4))
    more = f" and {len(report.sizes) - 4} more sizes" if len(report.sizes) > 4 else ""
    head = Text(f"{report.spec}  {report.where}\n{report.images} images, {report.labels} labels\n")
    head.append(f"sizes: {sizes or 'none readable'}{more}")
    for note in report.notes:
        head.append(f"\n{note}")
    parts: list[Text | Table] = [head]
    if report.class_counts.sum():
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for title in ("share", "pixels", "images"):
            table.add_column(title, justify="right")
        rows = zip((*report.classes, "ignored"), report.class_counts, report.seen, strict=True)
        for name, pixels, images in rows:
            share = f"{100 * pixels / report.class_counts.sum():.2f} %" if pixels else "-"
            table.add_row(Text(name), share, f"{pixels}", f"{images}")
        parts.append(table)
    for kind, lines in report.faults.items():
        parts.append(Text(f"{len(lines)} {kind}:", style="bold red"))
        parts += [Text(f"  {line}") for line in lines[:LISTED]]
        if len(lines) > LISTED:
            parts.append(Text(f"  and {len(lines) - LISTED} more"))
    if report.sheet is not None:
        parts.append(Text(f"contact sheet: {report.sheet}"))
    parts.append(Text(report.verdict, style="bold green" if report.usable else "bold red"))
    return Group(*parts)


SHEET_IMAGES = 12
PAIRS_A_ROW = 2
TILE, GAP, LINE = 320, 8, 18  # pixels: width of a picture, space between, height of a line of text
OVERLAY = 0.55  # share of the label's colour
INK, PAPER = (20, 20, 20), (255, 255, 255)


def contact_sheet(data: DataSet, chosen: Sequence[int], labelled: Sequence[bool], report: DataReport) -> Image.Image:
    """Pictures of the data set, each beside itself with its label laid over it, and what the colours mean.

    Ignored pixels are hatched.
    """
    tiles = [_tile(data, i, known) for i, known in zip(chosen, labelled, strict=True)]
    rows = [tiles[k : k + PAIRS_A_ROW] for k in range(0, len(tiles), PAIRS_A_ROW)]
    heights = [max(tile.shape[0] for _, tile in row) + LINE for row in rows]
    columns = min(PAIRS_A_ROW, len(tiles))
    width = columns * (2 * TILE + GAP) + GAP
    legend = _legend(data.space, report)
    letter = ImageFont.load_default(13)
    across = max(1, (width - 2 * GAP) // 210)
    lines = -(-len(legend) // across)
    height = GAP + sum(heights) + len(rows) * GAP + (lines + 1) * LINE + GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = GAP
    for row, tall in zip(rows, heights, strict=True):
        for column, (name, tile) in enumerate(row):
            left = GAP + column * (2 * TILE + GAP)
            pen.text((left, top), name, INK, letter)
            sheet.paste(Image.fromarray(tile), (left, top + LINE))
        top += tall + GAP
    pen.text((GAP, top), f"{report.spec}: {report.images} images, {report.labels} labels", INK, letter)
    top += LINE
    for k, (colour, text) in enumerate(legend):
        left, line = GAP + (k % across) * 210, top + (k // across) * LINE
        pen.rectangle((left, line + 2, left + 18, line + LINE - 3), colour, INK)
        pen.text((left + 24, line), text, INK, letter)
    return sheet


def _legend(space: Space, report: DataReport) -> list[tuple[tuple[int, int, int], str]]:
    """Colour and text of each class that is there, commonest first."""
    total = max(int(report.class_counts.sum()), 1)
    order = sorted(zip(space.colours.items(), report.class_counts[:-1], strict=True), key=lambda entry: -entry[1])
    entries = [(colour, f"{name}  {100 * n / total:.2f} %") for (name, colour), n in order if n]
    ignored = report.class_counts[-1]
    return [*entries, (PAPER, f"hatched: ignored  {100 * ignored / total:.2f} %")] if ignored else entries


def _tile(data: DataSet, i: int, labelled: bool) -> tuple[str, np.ndarray]:
    """Name, and (h, 2 TILE, 3) uint8: the image, and the image under its label; h is 2 TILE at most."""
    scene = data.read(i, label=labelled)
    pixels = np.ascontiguousarray(scene.image.permute(1, 2, 0).numpy())
    size = (TILE, min(2 * TILE, max(1, round(pixels.shape[0] * TILE / pixels.shape[1]))))
    image = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    if scene.label is None:
        return data.names[i], np.concatenate([image, np.full_like(image, 235)], 1)
    label = cv2.resize(scene.label.numpy(), size, interpolation=cv2.INTER_NEAREST_EXACT)
    known = (label < len(data.space.classes))[..., None]
    grey = image.mean(2, keepdims=True)
    # Hatched, because every plain grey or black is the colour of some class in some space.
    stripes = 255.0 * (np.add.outer(np.arange(size[1]), np.arange(size[0])) % 8 < 4)[..., None]
    colour = np.where(known, data.space.palette()[label], stripes)
    over = OVERLAY * colour + (1 - OVERLAY) * grey
    return data.names[i], np.concatenate([image, over.round().astype(np.uint8)], 1)
