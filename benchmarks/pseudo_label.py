"""Pseudo-labels: images a second, what part of the time the network takes, and memory at two numbers of images.

    python benchmarks/pseudo_label.py small [IMAGES ...]       64x32 pixels, the small DeepLab [default: 100 1000]
    python benchmarks/pseudo_label.py deeplab [IMAGES ...]     1024x512 pixels, DeepLab-v2 with ResNet-101 [default: 6]
    python benchmarks/pseudo_label.py medium [IMAGES ...]      1024x512 pixels, the small DeepLab [default: 20]

Images are noise in the layout of CamVid, in a folder that is removed; weights are random; float32 or what the machine
prefers. Each number of images is labelled in a process of its own. Time counts from the first image on; memory is the
most that the process was resident, the libraries and the network included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segda import run as runs
from segda.commands.pseudo_label import pseudo_label
from segda.data.labels.spaces import space_named
from segda.ground.hardware import environment, peak_memory, pick_precision
from segda.networks import NETWORKS
from segda.pseudo_labelling import job
from segda.recipes.build import build
from segda.recipes.recipe import load_recipe

MODES = {"small": ("small", (64, 32), (100, 1000)), "medium": ("small", (1024, 512), (20,)),
         "deeplab": ("101", (1024, 512), (6,))}  # fmt: skip
"""Encoder, width and height, numbers of images."""

CPU = torch.device("cpu")


def main(mode: str, numbers: list[int]) -> None:
    encoder, size, usual = MODES[mode]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_run(place / "run", encoder)
        for number in numbers or usual:
            write_images(place / f"data{number}", number, size)
            child = [sys.executable, __file__, "--child", str(place), str(number)]
            rows.append(json.loads(subprocess.run(child, check=True, stdout=subprocess.PIPE, text=True).stdout))
    print("| images | images a second | network | predicting, rest | thresholds and labels | sheet | peak memory |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        whole = row["predict"] + row["labels"] + row["finish"]
        parts = (row["network"], row["predict"] - row["network"], row["labels"], row["finish"])
        shares = " | ".join(f"{100 * part / whole:.1f} %" for part in parts)
        print(f"| {row['images']} | {row['images'] / whole:.2f} | {shares} | {row['peak'] / 2**20:.0f} MiB |")
    if len(rows) > 1:
        ratio = rows[-1]["peak"] / rows[0]["peak"]
        print(f"\nmemory at {rows[-1]['images']} images against {rows[0]['images']}: {ratio:.3f}")
    facts = environment(CPU, pick_precision("auto", CPU))
    print(
        f"\n{mode}: {size[0]}x{size[1]} pixels, encoder {encoder}, entropy-median, {facts['precision']}, "
        f"{facts['threads']} threads; {facts['processor']}; torch {facts['packages']['torch']}"
    )


def write_run(folder: Path, encoder: str) -> None:
    network = f"network={{name: deeplab_v2, encoder: '{encoder}', weights: scratch, multi_level: false}}"
    recipe = load_recipe("advent_camvid").override(network, "evaluate.resize=null")
    runs.begin(folder, recipe)
    torch.manual_seed(0)
    network = build(NETWORKS, recipe.network, "network", class_names=space_named("camvid-11").classes)
    runs.save_network(runs.product_path(folder, "student"), network, recipe.network, recipe.steps)


def write_images(root: Path, number: int, size: tuple[int, int]) -> None:
    """Noise with the coarse structure of a picture: a file of white noise would take a PNG decoder longest."""
    folder = root / "camvid" / "train"
    folder.mkdir(parents=True)
    for i in range(number):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), np.uint8))
        pixels = np.array(coarse.resize(size, Image.Resampling.BICUBIC)) // 2 + rng.integers(
            0, 8, (*size[::-1], 3), np.uint8
        )
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"0001TP_{i:05d}.png")


def child(place: Path, number: int) -> None:
    """Labels once and prints the seconds of each part, and the peak memory."""
    seconds = dict.fromkeys(("network", "predict", "labels", "finish"), 0.0)

    def timed(name: str, function):
        def run(*given, **settings):
            begin = time.perf_counter()
            try:
                return function(*given, **settings)
            finally:
                seconds[name] += time.perf_counter() - begin

        return run

    def load(*given, loaded=job.load_network, **settings):
        network = loaded(*given, **settings)
        network.low_res_logits = timed("network", network.low_res_logits)
        return network

    job.load_network = load
    job.predict = timed("predict", job.predict)
    job.write_labels = timed("labels", job.write_labels)
    job.finish = timed("finish", job.finish)
    pseudo_label([place / "run"], "camvid:train", "entropy-median", place / "out" / str(number),
                         root=place / f"data{number}")  # fmt: skip
    print(json.dumps({"images": number, "peak": peak_memory(CPU), **seconds}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 else "small", [int(number) for number in sys.argv[2:]])
