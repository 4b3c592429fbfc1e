"""A run folder and CamVid images small enough for tests: a tiny network with random weights, three dusk
images.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segda import run as runs
from segda.data.labels import space_named
from segda.networks import NETWORKS
from segda.recipe import Recipe, build, parse_recipe

SPACE = space_named("camvid-11")
DUSK = "camvid:test:dusk"


def write_camvid(root: Path, count: int = 3, size: tuple[int, int] = (40, 56)) -> Path:
    """`count` dusk test images in CamVid's layout: rows of classes, some noise, a corner nobody labelled."""
    rng = np.random.default_rng(0)
    palette = SPACE.palette()
    for index in range(count):
        label = np.add.outer(np.arange(size[0]) // 8 + index, np.arange(size[1]) // 20).astype(np.uint8) % 11
        image = np.clip(palette[label] * 0.5 + rng.normal(20, 15, (*size, 3)), 0, 255).astype(np.uint8)
        label[:4, :4] = 11
        for folder, pixels in (("test", image), ("testannot", label)):
            path = root / "camvid" / folder / f"0001TP_{index:06d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return root


def recipe_of(**evaluate) -> Recipe:
    augment = {"resize": None, "crop": [32, 32], "max_class_share": None, "flip": 0.5}
    return parse_recipe(
        {
            "seed": 0,
            "steps": 40,
            "data": {
                "source": "camvid:train:day",
                "target": "camvid:train:dusk",
                "batch": 1,
                "source_augment": augment,
                "target_augment": augment,
            },
            "network": {
                "name": "mit_daformer",
                "encoder": "tiny",
                "weights": "scratch",
                "channels": 8,
                "dilations": [1, 2],
                "dropout": 0.0,
                "drop_path": 0.0,
            },
            "method": {"name": "source_only", "photometric": None},
            "optim": {
                "name": "adamw",
                "lr": 1e-4,
                "head_lr_factor": 10,
                "betas": [0.9, 0.999],
                "weight_decay": 0.01,
                "warmup": 5,
                "warmup_ratio": 1e-6,
                "power": 1,
            },
            "evaluate": {"data": [DUSK], "resize": None, "how": "whole", **evaluate},
            "device": "cpu",
            "precision": "32",
        },
        "test recipe",
    )


def write_run(run: Path, *, teacher: bool = False, seed: int = 0, **evaluate) -> Path:
    """A finished run folder, but for the weights, which are random, and the reports, which are not there."""
    recipe = recipe_of(**evaluate)
    runs.begin(run, recipe)
    for which in ("student", *(["teacher"] if teacher else [])):
        torch.manual_seed(seed + (which == "teacher"))
        network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
        # Batch norm's running statistics as they are before any step would make all predictions alike.
        for buffer in network.decoder.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.1, 1)
        runs.save_network(run, which, network, recipe.network, recipe.steps)
    for step in range(10, 50, 10):
        runs.append_log(run, {"step": step, "seconds": 0.5, "source": 2.0 / step, "lr/student/encoder": 1e-4 / step})
    (run / "environment.json").write_text(json.dumps({"python": "3.11", "device": "cpu", "start": "from scratch"}))
    return run
