"""What the benchmarks of steps share: a clock for the parts of a step, loading, cells of tables."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median

import cv2

from segda.data.labels.label_ids import label_ids
from segda.data.labels.spaces import space_named
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.settings import Augment
from segda.data.stream.stream import Stream
from segda.data.streets import streets
from segda.recipes.recipe import Recipe

SPACE = space_named("cityscapes-19")


class Clock:
    """Seconds of each part; a part that runs inside another one is not counted twice."""

    def __init__(self):
        self.spent: dict[str, float] = defaultdict(float)
        self.parts: list[str] = []
        self.since = 0.0

    def turn(self) -> None:
        """What has passed since the last turn belongs to the innermost part."""
        now = time.perf_counter()
        if self.parts:
            self.spent[self.parts[-1]] += now - self.since
        self.since = now

    def timed(self, part: str, function: Callable) -> Callable:
        def wrapped(*arguments, **settings):
            self.turn()
            self.parts.append(part)
            try:
                return function(*arguments, **settings)
            finally:
                self.turn()
                self.parts.pop()

        return wrapped


def write_pairs(root: Path, count: int, shrink: int = 1) -> None:
    """Drawn streets of GTA5's and Cityscapes' size in PNG files, in the layouts of both. shrink: divides the sizes."""
    for index in range(count):
        drawn = streets.draw(0, index, "day", (256, 512))
        city = f"a/a_{index:06d}_000019"
        ids = cv2.LUT(drawn.label, label_ids(SPACE))
        names = {f"gta5/images/{index + 1:05d}.png": (drawn.image, (1914, 1052), cv2.INTER_CUBIC)}
        names[f"gta5/labels/{index + 1:05d}.png"] = (ids, (1914, 1052), cv2.INTER_NEAREST)
        for split in ("train", "val"):
            image = f"cityscapes/leftImg8bit/{split}/{city}_leftImg8bit.png"
            names[image] = (drawn.image, (2048, 1024), cv2.INTER_CUBIC)
        names[f"cityscapes/gtFine/val/{city}_gtFine_labelIds.png"] = (ids, (2048, 1024), cv2.INTER_NEAREST)
        for name, (pixels, size, kernel) in names.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (size[0] // shrink, size[1] // shrink)
            cv2.imwrite(str(path), cv2.resize(pixels, size, interpolation=kernel))


def loading(recipe: Recipe, count: int = 4, shrink: int = 1) -> list[float]:
    """Seconds to read, decode, resize and crop one source and one target image in one process.

    They are drawn streets of GTA5's and Cityscapes' size in PNG files.
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_pairs(root, count, shrink)
        data = recipe.data
        source, target = (open_data(name, root, SPACE) for name in ("gta5:train", "cityscapes:train"))
        pairs = Stream(
            source, target, 0, Augment(**dict(data.source.augment)), Augment(**dict(data.target.augment)),
            data.source.rare_class,
            None if data.source.rare_class is None else class_statistics(source, None, workers=0),
        )  # fmt: skip
        seconds = []
        for index in range(2 * count):
            begin = time.perf_counter()
            pairs[index]
            seconds.append(time.perf_counter() - begin)
    return seconds


def cell(seconds: list[float]) -> str:
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
