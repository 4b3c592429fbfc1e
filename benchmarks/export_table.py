"""Exported files against their networks: every shipped block of networks in every format, as a Markdown table.

    python benchmarks/export_table.py [BLOCK...]          # mit_b0_daformer, resnet101_deeplab_v2, ... [default: all but
                                                          # the encoders of more than 100 million weights]

Networks have random weights, batch norm's statistics and head included, so that the classes are near each other and
parity is hardest. Four rendered streets at night are compared at 256x128, an odd size and upright (of those that take
one size at that one). Then each is timed at 256x128, in turn with PyTorch.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError
from segda.exporting.about import About, Shown
from segda.exporting.exported import Exported
from segda.exporting.formats import FORMATS
from segda.exporting.job import compared
from segda.exporting.parity import parity_of
from segda.exporting.speed import speeds_of
from segda.ground.hardware import environment
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipes.build import build, from_scratch

BLOCKS = Path(__file__).parents[1] / "src" / "segda" / "recipes" / "networks"
LARGE = ("_b5_", "_l_")
SIZE = (128, 256)
SPACE = space_named("cityscapes-19")
CALLS = 5


def main(names: list[str]) -> None:
    chosen = names or [path.stem for path in sorted(BLOCKS.glob("*.yaml")) if not any(x in path.stem for x in LARGE)]
    data = open_data("streets:val:night", Path("data"))
    height, width = SIZE
    images = [
        torch.nn.functional.interpolate(data.read(i).image[None] / 255, SIZE, mode="bilinear").mul(255).round() / 255
        for i in range(4)
    ]
    print("| network | format | size | MB | same class | probabilities differ by | ms | PyTorch's ms |")
    print("| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for name in chosen:
        spec = from_scratch(NETWORKS, yaml.safe_load((BLOCKS / f"{name}.yaml").read_text())["network"], "network")
        torch.manual_seed(0)
        network = build(NETWORKS, spec, "network", class_names=SPACE.classes)
        scatter(network)
        for to in ("onnx", "torch", "openvino"):
            print(f"| {name} | {to} | {row(network.eval(), spec, to, images)}", flush=True)
    print(f"\n{machine()}, one image of {width}x{height}")


def scatter(network: Network) -> None:
    """Batch norms as after a training, so that not all pixels are alike."""
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm) and module.running_var is not None:
            assert module.running_mean is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


def about(network: Network, spec: dict[str, Any]) -> About:
    size = None if network.any_size else SIZE
    shown = Shown(None, "keep", "bilinear", "whole", None, None, (1.0,), False, "after")
    smallest = getattr(network, "smallest", 1)
    return About(
        SPACE.name, dict(SPACE.colours), "uint8", "probabilities", size, smallest, "32",
        None, "student", None, spec, shown,
    )  # fmt: skip


def row(network: Network, spec: dict[str, Any], to: str, images: list[torch.Tensor]) -> str:
    told = about(network, spec)
    with TemporaryDirectory() as folder:
        place = Path(folder) / f"network{FORMATS[to].suffix}"
        if not FORMATS[to].suffix:
            place.mkdir()
        try:
            FORMATS[to].write(network, told, place, ())
        except RecipeError as error:
            return f"- | - | {error} | | | |"
        files = [place] if place.is_file() else list(place.iterdir())
        size = sum(path.stat().st_size for path in files) / 1e6
        parity = parity_of(network, Exported(*FORMATS[to].open(place), place), compared(images, told))
    speeds = speeds_of(to, network, replace(told, size=None), images, 1, CALLS, ((to, "32"),))
    ours, *_, theirs = (1000 * one.median for one in speeds.rows)
    sizes = "any" if told.size is None else f"{SIZE[1]}x{SIZE[0]}"
    return f"{sizes} | {size:.1f} | {parity.share:.4%} | {parity.probability:.1e} | {theirs:.1f} | {ours:.1f} |"


def machine() -> str:
    facts = environment(torch.device("cpu"), torch.float32)
    packages = facts["packages"]
    assert isinstance(packages, dict)
    return f"median of {CALLS} calls, {facts['threads']} threads; {facts['processor']}; torch {packages['torch']}"


if __name__ == "__main__":
    main(sys.argv[1:])
