"""Recorded values: where they lie, and the generator that their inputs come from (see golden/README.md)."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from segda.networks.weights.undrawn import Undrawn

Built = TypeVar("Built", bound=nn.Module)

NOISE = {
    "one pass": 1e-6,
    "batch statistics": 8e-6,
    "batch statistics of a pyramid": 1.5e-5,
    "upsampling": 2e-6,
    "number": 1e-7,
}
"""What the authors' own code differs by between float32 and float64, of the largest value: measured once over the
recorded sets and fixed here, so that a wrong recorded value cannot loosen the test that reads it."""


def assert_near(ours: torch.Tensor | float, exact: np.ndarray | float, noise: str, what: str) -> None:
    """Within ten times that noise of the float64 values recorded; in other orders of summation rounding is another."""
    ours = ours.detach().double().numpy() if isinstance(ours, torch.Tensor) else np.float64(ours)
    exact = np.asarray(exact, np.float64)
    assert ours.shape == exact.shape, what
    np.testing.assert_allclose(ours, exact, rtol=0, atol=10 * NOISE[noise] * np.abs(exact).max(), err_msg=what)


def filled(build: Callable[[], Built], tensors: Mapping[str, Tensor]) -> Built:
    """A network with copies of these tensors, which are all that it has; it is not started at random before."""
    with Undrawn():
        network = build()
    network.load_state_dict(tensors)
    return network


def folder(collection: str) -> Path:
    """The values of a collection: $SEGDA_GOLDEN/<collection>, or those in the repository."""
    own = Path(__file__).parent / "conformance" / "golden"
    return Path(os.environ.get("SEGDA_GOLDEN", own)) / collection


class Golden:
    """One collection of recorded values."""

    def __init__(self, collection: str):
        self.folder = folder(collection)
        self.offset = self.json("set.json")["key_offset"]

    def json(self, name: str):
        return json.loads(self._path(name).read_text())

    def npz(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self._path(name)) as values:
            return dict(values)

    def normal(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal float32, the same wherever the name is the same."""
        key = zlib.crc32(name.encode()) + self.offset
        draws = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape)
        return np.asarray(draws, np.float32)

    def integers(self, name: str, low: int, high: int, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform int64 in low .. high - 1, the same wherever the name is the same."""
        key = zlib.crc32(name.encode()) + self.offset
        return np.random.Generator(np.random.Philox(key=key)).integers(low, high, size=shape)

    def tensor(self, name: str, shape: list[int], kind: str) -> torch.Tensor:
        """A recorded network's tensor, of the kinds of `weights.json`; the arithmetic is float32."""
        if kind == "counter":
            return torch.zeros(shape, dtype=torch.int64)
        normal = self.normal(name, tuple(shape))
        tenth = np.float32(0.1)
        values = {
            "conv_weight": lambda: normal * np.float32((2 / np.prod(shape[1:])) ** 0.5),
            "convt_weight": lambda: normal * np.float32((2 / (shape[0] * np.prod(shape[2:]) / 4)) ** 0.5),
            "residual_weight": lambda: normal * (np.float32(0.25) * np.float32((2 / np.prod(shape[1:])) ** 0.5)),
            "bias": lambda: tenth * normal,
            "bn_weight": lambda: 1 + tenth * normal,
            "bn3_weight": lambda: np.float32(0.25) + np.float32(0.025) * normal,
            "bn_bias": lambda: tenth * normal,
            "bn_running_mean": lambda: tenth * normal,
            "bn_running_var": lambda: 1 + tenth * abs(normal),
        }
        return torch.from_numpy(np.asarray(values[kind]()))

    def _path(self, name: str) -> Path:
        # The recorded sets as published keep arrays in values/ and model lists in models/.
        places = [self.folder / name, self.folder / "values" / name, self.folder / "models" / name]
        return next((path for path in places if path.exists()), places[0])
