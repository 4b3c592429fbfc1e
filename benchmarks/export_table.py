"""Exported files against their networks: every shipped block of networks in every format, as two Markdown tables.

    python benchmarks/export_table.py [BLOCK...] [--kept build/export_table.jsonl]
    python benchmarks/export_table.py --small [--kept build/export_table_small.jsonl]

BLOCK: mit_b0_daformer, resnet101_deeplab_v2, ... [default: all]. Each block is a process and, when it has ended, a line
of --kept: what is there is not measured again, so that a run that was cut short goes on. Printed are the tables of all
lines. Weights are random, batch norm's statistics and head included, so that the classes are near each other and
agreement is hardest. Four rendered streets at night are compared at 256x128, two at once of an odd size and one upright
(of networks that take one size: at that one). Then one image of 256x128 is timed, PyTorch and the files in turn. A file
that cannot be written says why in its cell. Networks of more than 100 million parameters have no file of eight bits.

--small takes the networks of tests/networks/test_network_table.py in their place: narrow ones of every kind of network,
decoder and encoder. They are compared in 32 bits, and not timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import yaml
from torch.export import ExportedProgram

from segda.data.labels.spaces import space_named
from segda.data.sets.datasets import open_data
from segda.errors import RecipeError, WeightsError
from segda.exporting.about import About, Shown
from segda.exporting.exported import Exported
from segda.exporting.formats import FORMATS, onnx_of, openvino_of, quiet, torch_of
from segda.exporting.graph import Deployed, traced
from segda.exporting.job import compared, given_to
from segda.exporting.parity import parity_of
from segda.exporting.speed import in_turn
from segda.ground.choices import ExportPrecision
from segda.ground.hardware import environment, peak_memory
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipes.build import build, from_scratch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from narrow import narrow
from networks.test_network_table import SMALL

BLOCKS = Path(__file__).parents[1] / "src" / "segda" / "recipes" / "networks"
SIZE = (128, 256)
SPACE = space_named("cityscapes-19")
CALLS = 5
MOST_INT8 = 100
"""Millions of parameters: of larger networks NNCF takes minutes and gigabytes."""
WAYS: dict[str, tuple[str, ExportPrecision]] = {
    "ONNX": ("onnx", "32"),
    ".pt2": ("torch", "32"),
    "OpenVINO": ("openvino", "32"),
    "int8": ("openvino", "int8"),
}
"""Name in the tables -> format and precision; OpenVINO's are made of ONNX's file."""


def main(names: list[str], kept: Path, small: bool) -> int:
    """1 if a block failed; the tables are of the others."""
    done = read(kept)
    for name in names:
        if name in done:
            continue
        command = [sys.executable, __file__, name, "--kept", str(kept), "--alone", *["--small"] * small]
        if subprocess.run(command).returncode == 0:
            print(f"{name}: {read(kept)[name]['seconds']:.0f} s", file=sys.stderr, flush=True)
    done = read(kept)
    rows = {name: done[name] for name in names if name in done}
    times = [] if small else [*milliseconds(rows), "", f"Median of {CALLS} calls, one image of {SIZE[1]}x{SIZE[0]}."]
    print("\n".join([*agreement(rows), "", *times, *machines(rows)]))
    failed = [name for name in names if name not in done]
    if failed:
        print(f"failed: {', '.join(failed)}; their tracebacks stand above", file=sys.stderr)
    return 1 if failed else 0


def read(kept: Path) -> dict[str, Any]:
    """Block -> what was measured of it."""
    lines = kept.read_text().splitlines() if kept.is_file() else []
    return {one["network"]: one for one in map(json.loads, lines)}


def block(name: str) -> dict[str, Any]:
    """Its network, with random weights."""
    spec = from_scratch(NETWORKS, yaml.safe_load((BLOCKS / f"{name}.yaml").read_text())["network"], "network")
    if spec["name"] == "relit":  # where the block leaves them to the source's labels
        spec.setdefault("frequencies", dict.fromkeys(SPACE.classes, 1 / len(SPACE.classes)))
    return spec


def measure(name: str, small: bool) -> dict[str, Any]:
    """One network in all formats."""
    begun = time.perf_counter()
    data = open_data("streets:val:night", Path("data"))
    images = [
        torch.nn.functional.interpolate(data.read(i).image[None] / 255, SIZE, mode="bilinear").mul(255).round() / 255
        for i in range(4)
    ]
    torch.manual_seed(0)
    with narrow() if small else nullcontext():
        spec = SMALL[name] if small else block(name)
        network = build(NETWORKS, spec, "network", class_names=SPACE.classes)
    scatter(network)
    network.eval()
    told = about(network, spec)
    millions = sum(one.numel() for one in network.parameters()) / 1e6
    files: dict[str, Any] = {}
    calls = {"PyTorch": with_torch(network, told, images[0])}
    with TemporaryDirectory() as folder:
        with quiet():
            program = traced(network, told)
        for way, (to, precision) in WAYS.items():
            if precision == "int8" and (small or millions > MOST_INT8):
                continue
            place = Path(folder) / f"{to}_{precision}{FORMATS[to].suffix}"
            try:
                write(program, replace(told, precision=precision), to, place, images)
                exported = Exported(*FORMATS[to].open(place), place)
                parity = parity_of(network, exported, compared(images, told))
            except (RecipeError, WeightsError) as error:
                files[way] = {"failed": str(error)}
                continue
            paths = [place] if place.is_file() else list(place.iterdir())
            files[way] = {
                "same": parity.share,
                "probability": parity.probability,
                "margin": parity.margin,
                "MB": sum(path.stat().st_size for path in paths) / 1e6,
            }
            calls[way] = with_file(exported, images[0])
        del program  # of whose weights it holds a copy
        taken = {} if small else in_turn(calls, CALLS)
    return {
        "network": name,
        "millions": millions,
        "size": "any" if told.size is None else f"{SIZE[1]}x{SIZE[0]}",
        "files": files,
        "ms": {way: 1000 * statistics.median(seconds) for way, seconds in taken.items()},
        "machine": machine(),
        "seconds": time.perf_counter() - begun,
        "peak": peak_memory(torch.device("cpu")),
    }


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


def write(program: ExportedProgram, told: About, to: str, place: Path, images: list[torch.Tensor]) -> None:
    """As segda.exporting.formats does, but each step once: tracing and ONNX take longest."""
    if to == "onnx":
        onnx_of(program, told, place)
    elif to == "torch":
        torch_of(program, told, place)
    else:
        graph = place.with_name(f"onnx_32{FORMATS['onnx'].suffix}")
        place.mkdir()
        openvino_of(graph, told, place, [given_to(image, told) for image in images])


def with_torch(network: Network, told: About, image: torch.Tensor) -> Callable[[], object]:
    module, given = Deployed(network, told), torch.from_numpy(given_to(image, told))

    def compute() -> torch.Tensor:
        with torch.inference_mode():
            return module(given)

    return compute


def with_file(exported: Exported, image: torch.Tensor) -> Callable[[], object]:
    given = np.ascontiguousarray(given_to(image, exported.about))
    return lambda: exported.runner(given)


def machine() -> str:
    facts = environment(torch.device("cpu"), torch.float32)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino", "nncf"))
    return f"{facts['threads']} threads; {facts['processor']}; {versions}"


# Tables


def agreement(rows: dict[str, Any]) -> list[str]:
    """The share of pixels that have the network's class, and the largest difference of a probability."""

    def cell(row: dict[str, Any], way: str) -> str:
        file = row["files"].get(way, {"failed": "-"})
        return file.get("failed") or f"{file['same']:.4%}, {file['probability']:.0e}"

    def mb(row: dict[str, Any], way: str) -> str:
        file = row["files"].get(way, {})
        return f"{file['MB']:.1f}" if "MB" in file else "-"

    return [
        f"| network | parameters, millions | size | {' | '.join(WAYS)} | MB, ONNX | MB, int8 |",
        f"| --- | ---: | --- |{' ---: |' * (len(WAYS) + 2)}",
        *(
            f"| {name} | {row['millions']:.1f} | {row['size']} | {' | '.join(cell(row, way) for way in WAYS)} "
            f"| {mb(row, 'ONNX')} | {mb(row, 'int8')} |"
            for name, row in rows.items()
        ),
    ]


def milliseconds(rows: dict[str, Any]) -> list[str]:
    ways = ("PyTorch", *WAYS)

    def cell(row: dict[str, Any], way: str) -> str:
        return f"{row['ms'][way]:.1f}" if way in row["ms"] else "-"

    return [
        f"| network, ms an image | {' | '.join(ways)} |",
        f"| --- |{' ---: |' * len(ways)}",
        *(f"| {name} | {' | '.join(cell(row, way) for way in ways)} |" for name, row in rows.items()),
    ]


def machines(rows: dict[str, Any]) -> list[str]:
    """Below the tables; more than one where --kept has lines of several."""
    return list(dict.fromkeys(row["machine"] for row in rows.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("block", nargs="*")
    parser.add_argument("--kept", type=Path, help="default: build/export_table.jsonl or build/export_table_small.jsonl")
    parser.add_argument("--small", action="store_true", help="narrow networks of every kind, in 32 bits, not timed")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    there = list(SMALL) if given.small else sorted(path.stem for path in BLOCKS.glob("*.yaml"))
    if unknown := [name for name in given.block if name not in there]:
        parser.error(f"{', '.join(unknown)}: no block of networks; there are {', '.join(there)}")
    kept = given.kept or Path("build/export_table_small.jsonl" if given.small else "build/export_table.jsonl")
    if given.alone:
        line = json.dumps(measure(given.block[0], given.small))
        kept.parent.mkdir(parents=True, exist_ok=True)
        with kept.open("a") as file:
            file.write(f"{line}\n")
    else:
        sys.exit(main(given.block or there, kept, given.small))
