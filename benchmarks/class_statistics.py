"""Seconds to count the classes of label images of 2048 x 1024 and to write them as train ids, by number of processes.

    python benchmarks/class_statistics.py [IMAGES]

The labels are drawn streets as PNG, in the layout of Cityscapes. The first row is the bare decoder, in one process.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from segda.commands.draw import draw
from segda.commands.prepare import prepare
from segda.data.files.images import read_ids
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.ground.pool import cores

DRAWN = 10


def main(root: Path, images: int) -> None:
    draw("streets:train", root / "cityscapes", min(DRAWN, images), (1024, 2048))
    for path in list((root / "cityscapes").glob("*/train/*/*.*")):
        number = int(path.name.split("_")[2])
        for k in range(number + DRAWN, images, DRAWN):
            os.link(path, path.with_name(path.name.replace(f"0_{number:06d}_", f"0_{k:06d}_")))
    data = open_data("cityscapes:train", root)

    def decode() -> None:
        for i in range(len(data)):
            read_ids(data.label_path(i))

    counts = sorted({1, cores()})
    parts = {"decoding alone": decode}
    parts |= {f"class_statistics, {n} processes": lambda n=n: class_statistics(data, None, workers=n) for n in counts}
    out = root / "out"
    parts |= {f"prepare, {n} processes": lambda n=n: prepare("cityscapes:train", root, out, workers=n) for n in counts}
    print(f"| {images} labels of 2048x1024, {cores()} cores | s | images a second |\n|---|---:|---:|")
    for part, work in parts.items():
        shutil.rmtree(out, ignore_errors=True)
        begin = time.perf_counter()
        work()
        took = time.perf_counter() - begin
        print(f"| {part} | {took:.1f} | {images / took:.0f} |", flush=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        main(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
