"""The training stream under load: is its memory flat, and how long does a training wait for images?

    python benchmarks/stream.py memory [DRAWS] [IMAGES] [--workers N]
    python benchmarks/stream.py waiting [SECONDS] [STEPS]

memory: DRAWS (200,000) draws of a listing of IMAGES (25,000) in the layout of Cityscapes, with rare-class sampling and
without, read by N (2) processes. The files are small, and hard links of a few: what is asked is what the listing, the
draws and the processes keep. Resident memory, from /proc, of this process and of each that reads, after a tenth of the
draws and after all of them. Exit code 1 if one of them has grown by more than 5 %.

waiting: batches of two pairs of 1914 x 1052 PNGs (gradients with noise, and their labels), resized and cropped as in
DAFormer's recipes for GTA5, for steps of SECONDS (0.5) that leave the processor alone, as an accelerator's do. The
share of their time that STEPS (40) of them wait, for each number of processes that read.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.loading import loader
from segda.data.stream.settings import Augment, RareClass
from segda.data.stream.stream import Stream
from segda.ground.pool import cores
from segda.training.timing import Pace

MOST = 0.05
"""Memory may grow by so much of it."""

DIFFERENT = 40
"""Files that the others are links to."""

SMALL, TINY = (48, 96), (32, 32)
BATCH = 20
RARE = RareClass(temperature=0.01, min_pixels=60, crop_ratio=0.5, retries=10)

LARGE = (1052, 1914)
LOOK = Augment(resize=(1280, 720), crop=(512, 512), max_class_share=0.75, flip=0.5)
UNLABELLED = LOOK.model_copy(update={"resize": (1024, 512), "max_class_share": None})


def write_images(root: Path, images: int, different: int, make: Callable[[int], tuple[np.ndarray, np.ndarray]]) -> None:
    """Images and labels in Cityscapes' layout; all but the first `different` are links to these."""
    for k in range(images):
        city, key = f"town{k // 500:03d}", f"{k // 500:06d}_{k % 500:06d}"
        for kind, end, pixels in zip(
            ("leftImg8bit", "gtFine"), ("leftImg8bit", "gtFine_labelIds"), make(k) if k < different else (None, None),
            strict=True,
        ):  # fmt: skip
            path = root / "cityscapes" / kind / "train" / city / f"{city}_{key}_{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            first = root / f"{kind}-{k % different}.png"
            if pixels is not None:
                Image.fromarray(pixels).save(first, compress_level=3)
            os.link(first, path)


def small(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and blocks of 64 pixels of label ids, some rarer than others."""
    rng = np.random.default_rng(k)
    ids = np.minimum(6 + rng.geometric(0.1, (SMALL[0] // 8, SMALL[1] // 8)), 33)
    return rng.integers(0, 256, (*SMALL, 3), np.uint8), np.kron(ids, np.ones((8, 8), int)).astype(np.uint8)


def large(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with noise, which take as long to decode as photographs, and large blocks of label ids."""
    rng = np.random.default_rng(k)
    slope = np.add.outer(np.linspace(0, 100, LARGE[0]), np.linspace(0, 100, LARGE[1]))
    image = np.clip(slope[..., None] + rng.normal(20, 6, (*LARGE, 3)), 0, 255).astype(np.uint8)
    ids = np.kron(rng.integers(7, 34, (11, 20)), np.ones((96, 96), int))[: LARGE[0], : LARGE[1]]
    return image, ids.astype(np.uint8)


def resident(pid: int) -> dict[str, float]:
    """Megabytes of a process: all that is resident, and its own, which is in no file."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    values = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return {name: int(values[name].split()[0]) / 1024 for name in ("VmRSS", "RssAnon")}


def memory(draws: int, images: int, workers: int) -> int:
    """Prints the table; how many of its rows have grown by more than MOST."""
    grown = 0
    what = f"{draws:,} draws of {images:,} images"
    print(f"| {what} | process | VmRSS at 10 %, MB | at 100 % | RssAnon at 10 % | at 100 % |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, images, DIFFERENT, small)
        data = open_data("cityscapes:train", root)
        assert len(data) == images
        look = Augment(resize=None, crop=TINY, max_class_share=None, flip=0.5)
        for title, rare in (("every image once an epoch", None), ("rare classes", RARE)):
            statistics = None if rare is None else class_statistics(data, None)
            pairs = Stream(data, data, 0, look, look, rare, statistics)
            begin, marks, steps = time.monotonic(), {}, draws // BATCH
            for step, _ in enumerate(loader(pairs, BATCH, 0, steps, workers, 0), 1):
                if step in (steps // 10, steps):
                    readers = sorted(child.pid for child in multiprocessing.active_children())
                    marks[step] = {pid: resident(pid) for pid in (os.getpid(), *readers)}
            before, after = marks.values()
            names = ("training", *(f"reader {k}" for k in range(1, workers + 1)))
            for pid, name in zip(before, names, strict=True):
                cells = [f"{before[pid][kind]:.1f} | {after[pid][kind]:.1f}" for kind in ("VmRSS", "RssAnon")]
                print(f"| {title} | {name} | {' | '.join(cells)} |")
                grown += any(after[pid][kind] > (1 + MOST) * before[pid][kind] for kind in ("VmRSS", "RssAnon"))
            print(f"{title}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    print(f"\n{'All' if not grown else 'Not all'} within {MOST:.0%}.")
    return grown


def waiting(seconds: float, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root, 24, 24, large)
        data = open_data("cityscapes:train", root)
        pairs = Stream(data, data, 0, LOOK, UNLABELLED)
        print(f"| processes that read | waiting, {steps} steps of {seconds} s | seconds a step |")
        print("|---:|---:|---:|", flush=True)
        for workers in (0, 1, 2, 4):
            first = 2 * workers + 1  # the first steps have what was read while the processes began
            batches = loader(pairs, 2, 0, first + steps, workers, 0)
            for _ in range(first):
                next(batches)
                time.sleep(seconds)
            pace = Pace(0)
            for _ in range(steps):
                with pace.waiting():
                    next(batches)
                time.sleep(seconds)
            a_step, share = pace.take(steps)
            batches.close()
            print(f"| {workers} | {share:.1%} | {a_step:.2f} |", flush=True)
    print(f"\n{cores()} cores, load {os.getloadavg()[0]:.1f} at the end.")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["memory", "waiting"])
    parser.add_argument("numbers", nargs="*", type=float)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "waiting":
        seconds, steps = (*asked.numbers, *(0.5, 40)[len(asked.numbers) :])
        waiting(seconds, int(steps))
        return 0
    draws, images = (*asked.numbers, *(200_000, 25_000)[len(asked.numbers) :])
    return int(memory(int(draws), int(images), asked.workers) > 0)


if __name__ == "__main__":
    sys.exit(main())
