"""`segda benchmark`: how long a run's network takes for an image, in every format that runs here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segda.errors import RecipeError
from segda.evaluation.inference import Size
from segda.exporting.about import About
from segda.exporting.formats import FORMATS, openvino_of
from segda.exporting.graph import Deployed
from segda.ground.choices import ExportPrecision
from segda.ground.hardware import autocast, environment, pick_precision
from segda.networks.network import Network

ROWS: tuple[tuple[str, ExportPrecision], ...] = (("onnx", "32"), ("openvino", "32"), ("openvino", "int8"))
"""The formats that are timed beside PyTorch."""

WARM = 2
"""Calls of each before the first that counts."""


@dataclass(frozen=True)
class Speed:
    """One way to compute: seconds of each call."""

    name: str
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass(frozen=True)
class Speeds:
    """rows: the first is PyTorch in float32. missing: formats that were left out, with the reason."""

    of: str
    size: Size
    batch: int
    rows: tuple[Speed, ...]
    missing: tuple[str, ...]
    machine: dict[str, object]

    def markdown(self) -> str:
        """A table, and the machine below it."""
        lines = [
            "| | ms an image, median (least to most) | images a second | times PyTorch |",
            "| --- | ---: | ---: | ---: |",
        ]
        for row in self.rows:
            low, middle, high = (
                1000 * seconds / self.batch for seconds in (min(row.seconds), row.median, max(row.seconds))
            )
            faster = self.rows[0].median / row.median
            lines.append(
                f"| {row.name} | {middle:.1f} ({low:.1f} to {high:.1f}) | {1000 / middle:.1f} | {faster:.2f} |"
            )
        height, width = self.size
        packages = self.machine["packages"]
        assert isinstance(packages, dict)
        told = (
            f"{self.of}: {len(self.rows[0].seconds)} calls each, in turn, of {self.batch} x {width}x{height}; "
            f"{self.machine['threads']} threads; {self.machine['processor']}; torch {packages['torch']}"
        )
        return "\n".join([*lines, "", told, *self.missing])

    def lines(self) -> list[str]:
        return self.markdown().splitlines()


def speeds_of(
    of: str,
    network: Network,
    about: About,
    images: Sequence[Tensor],
    batch: int,
    calls: int,
    files: Sequence[tuple[str, ExportPrecision]] | None = None,
) -> Speeds:
    """images: (1, 3, H, W) RGB in [0, 1], all of one size; the first `batch` are computed, all calibrate int8.
    files: the formats, if not those of ROWS.
    """
    seen = torch.cat([images[place % len(images)] for place in range(batch)])
    size = (seen.shape[-2], seen.shape[-1])
    with TemporaryDirectory() as folder:
        ways: dict[str, Callable[[], Any]] = dict(with_torch(network, about, seen))
        missing = []
        for to, precision in ROWS if files is None else files:
            name = f"{to}, {'float32' if precision == '32' else precision}"
            try:
                ways[name] = with_file(
                    network, replace(about, size=size, precision=precision), to, images, seen, folder
                )
            except RecipeError as error:  # what it needs is not installed
                missing.append(f"{name}: left out, {error}")
        seconds = in_turn(ways, calls)
    rows = tuple(Speed(name, tuple(taken)) for name, taken in seconds.items())
    return Speeds(of, size, batch, rows, tuple(missing), environment(torch.device("cpu"), torch.float32))


def in_turn(ways: Mapping[str, Callable[[], object]], calls: int) -> dict[str, list[float]]:
    """Seconds of so many calls of each way, one after the other in each round; the first WARM rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for call in range(WARM + calls):
        for name, compute in ways.items():
            begun = time.perf_counter()
            compute()
            if call >= WARM:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def with_torch(network: Network, about: About, seen: Tensor) -> Iterator[tuple[str, Callable[[], Any]]]:
    """PyTorch in float32, and as segda computes where it is left to choose."""
    device = torch.device("cpu")
    module = Deployed(network, replace(about, input="float", precision="32"))
    for precision in dict.fromkeys((torch.float32, pick_precision("auto", device))):
        context: AbstractContextManager = nullcontext() if precision is torch.float32 else autocast(device, precision)

        def compute(context: AbstractContextManager = context) -> Tensor:
            with torch.inference_mode(), context:
                return module(seen)

        yield f"PyTorch, {str(precision).removeprefix('torch.')}", compute


def with_file(
    network: Network, about: About, to: str, images: Sequence[Tensor], seen: Tensor, folder: str
) -> Callable[[], Any]:
    """An exported file, which stays in `folder`."""
    row = FORMATS[to]
    about = replace(about, input="float")
    place = Path(folder) / f"{to}_{about.precision}{row.suffix}"
    if not row.suffix:
        place.mkdir()
    calibration, traced = [image.numpy() for image in images], Path(folder) / "onnx_32.onnx"
    if to == "openvino" and traced.is_file():  # which it would begin with, and which takes longest
        openvino_of(traced, about, place, calibration)
    else:
        row.write(network, about, place, calibration)
    _, run = row.open(place)
    given = np.ascontiguousarray(seen.numpy())
    return lambda: run(given)
