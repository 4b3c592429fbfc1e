"""A first recipe for somebody's own images: each choice with its reason beside it, to be read and changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segda.ground.choices import PresetName
from segda.ground.safe_yaml import yaml_line
from segda.recipes.blocks import beside
from segda.recipes.presets import PRESETS, keys_of

PIXELS = {"cpu": 320 * 240, "mps": 512 * 256, "cuda": 1024 * 512}
"""Device -> pixels of an image in training, at most. ours: on a processor CamVid's, on a GPU DAFormer's images of GTA5
and Cityscapes at half their size."""

BATCHES = ((24, 8), (8, 4), (0, 2))
"""GiB of a GPU's memory from which on so many scenes of each domain are in a step. ours."""

CROP, UNIT = 0.8, 32
"""A crop has about this share of an image's height and of its width, in whole units of the encoders' coarsest grid, two
at least: what a small image lacks is padded."""

LEAST = 2 * UNIT
"""Pixels of an image's shorter side in training, to which smaller images are enlarged: EfficientNet-Lite needs 33."""

FEW = 3
"""Classes from which on a crop of mostly one class is drawn again: of two, one may well be nearly all."""

METHODS = {
    "recipe": ("ease", "EASE on your own images: source and target, from an ImageNet start"),
    "source_only": ("source_only_jitter", "The same without the target's images: what adaptation is compared with"),
}
"""File -> its block of methods, and what stands above."""


@dataclass(frozen=True)
class Facts:
    """size: (height, width) of the middle image. images: of the source. sets: domain -> its data set. scored: what is
    labelled. memory: of a GPU, in GiB.
    """

    size: tuple[int, int]
    images: int
    classes: int
    sets: Mapping[str, str]
    scored: Sequence[str]
    device: str
    memory: float = 0.0

    @property
    def box(self) -> tuple[int, int]:
        """(width, height) that images are brought to."""
        height, width = self.size
        scale = min(1.0, (PIXELS[self.device] / (height * width)) ** 0.5)
        scale = max(scale, LEAST / min(height, width))
        return round(width * scale), round(height * scale)

    @property
    def crop(self) -> tuple[int, int]:
        """(height, width)."""
        width, height = self.box
        return _units(height), _units(width)

    @property
    def batch(self) -> int:
        if self.device != "cuda":
            return 2
        return next(scenes for gibibytes, scenes in BATCHES if self.memory >= gibibytes)


def _units(side: int) -> int:
    return max(2, round(side * CROP / UNIT)) * UNIT


def first_recipe(file: str, facts: Facts, preset: PresetName) -> str:
    """The text of a recipe. file: a key of METHODS."""
    block, title = METHODS[file]
    keys = keys_of(preset, block.removesuffix("_jitter"))
    seen = keys["steps"] * facts.batch / facts.images
    (width, height), (down, across) = facts.box, facts.crop
    small = (width, height) == facts.size[::-1]
    why = "enlarged to what a network needs" if width > facts.size[1] else _device(facts)
    box = "as they are" if small else f"of {facts.size[1]} x {facts.size[0]}; {why}"
    lines: list[tuple[int, str, Any, str]] = [
        (0, "steps", keys.pop("steps"), f"{preset}: {PRESETS[preset].reason}; each source image {seen:.0f} times"),
        *((0, key, value, _why(key, preset)) for key, value in keys.items()),
        (0, "data", None, ""),
        (1, "batch", facts.batch, f"scenes of each domain in a step; {_batch(facts)}"),
    ]
    for domain, spec in facts.sets.items():
        share = 0.75 if domain == "source" and facts.classes >= FEW else None
        why = "a crop has less than this of one class [code DAFormer]"
        if not share:
            why = "needs labels, which a target does not have" if domain == "target" else "one of two may fill a crop"
        lines += [
            (1, domain, None, ""),
            (2, "set", spec, "" if domain == "source" else "images only; labels would never be opened"),
            (2, "augment", None, ""),
            (3, "resize", [width, height], f"width, height; {box}"),
            (3, "crop", [down, across], "height, width; about four fifths of each, in units of 32"),
            (3, "max_class_share", share, why),
            (3, "flip", 0.5, "probability of mirroring; 0 where left and right mean something"),
        ]
        if domain == "source" and facts.classes > 1:
            lines += [
                (2, "rare_class", None, ""),
                (3, "temperature", 0.01, "images of rare classes more often [paper DAFormer, sec. 4.1]"),
                (3, "min_share", 0.0033, "of an image's pixels, for it to show a class; ours"),
                (3, "crop_ratio", 0.5, "of that, in a crop [code DAFormer, min_crop_ratio]"),
                (3, "retries", 10, "[code DAFormer, uda_dataset.py]"),
            ]
    lines += [
        (0, "evaluate", None, ""),
        (1, "data", list(facts.scored), "scored at the end; nothing is chosen by it"),
        (1, "resize", [width, height], "the size it was trained at"),
        (1, "how", "whole", ""),
    ]
    head = [
        f"# {title}. Written by `segda init`: what it chose, and why.",
        '# "ours" marks what we chose for short runs. [code DAFormer] is lhoyer/DAFormer.',
        f"use: [networks/lite0_segformer, methods/{block}]",
        "seed: 0",
    ]
    return "\n".join([*head, *(_line(*line) for line in lines)]) + "\n"


def _device(facts: Facts) -> str:
    return {"cpu": "small, for a processor", "mps": "for this machine's GPU", "cuda": "for a GPU"}[facts.device]


def _batch(facts: Facts) -> str:
    if facts.device != "cuda":
        return "few, for time"
    return f"for {facts.memory:.0f} GiB; `segda train --max-batch` says how many fit"


def _why(key: str, preset: PresetName) -> str:
    if key == "method.begin":
        return "self-training begins after five eighths of the steps"
    return f"{preset}: from ImageNet, as pip installs it"


def _line(depth: int, key: str, value: Any, why: str) -> str:
    text = f"{'  ' * depth}{key}:" if value is None and not why else f"{'  ' * depth}{key}: {yaml_line(value)}"
    return beside(text, why)
