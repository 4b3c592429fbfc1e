"""What `segda convert` was asked for and what became of it, and what is refused on the way there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from segda import run as runs
from segda.errors import RecipeError, RunError, WeightsError, few, nearest
from segda.networks.weights.layouts import LAYOUTS, Layout, relit

OURS = "segda"
"""The name of our own style."""

TRANSLATORS = "cyclegan"
"""The style of CycleGAN's generators, see translators.py."""

PLAIN = (".pth", ".pt")
"""Endings of a state dict as torch saves it, which is what other code bases read."""

CONSTANTS = ("mean", "scale", "deviation")
"""Our names of a network's normalisation, which is not learnt."""


def is_constant(key: str) -> bool:
    """Whether a tensor is of a network's normalisation, or of one inside it."""
    return key.rpartition(".")[2] in CONSTANTS


@dataclass(frozen=True)
class Asked:
    """One conversion: where to, from or to which style, which network of several, and what was agreed to."""

    out: Path
    style: str
    weights: runs.Which
    leave_out: tuple[str, ...]
    allow_missing: bool
    overwrite: bool
    step: int | None = None
    """Of a run of ours: which of its snapshots."""
    relit: bool = False
    """Whether the network of the style is inside one that relights."""

    @property
    def layout(self) -> Layout:
        layout = layout_named(self.style)
        return relit(layout) if self.relit else layout


@dataclass(frozen=True)
class Converted:
    """What became of a checkpoint. Names are the given file's where they tell what was left out, else ours."""

    out: Path
    style: str
    tensors: int
    """Those that were taken over."""
    left_out: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    """Ours that no such file has: the network's normalisation, and counters from before they were invented."""
    missing: tuple[str, ...] = ()
    """Ours that the file should have had, and that are at their random start."""
    notes: tuple[str, ...] = ()
    """What the configuration beside the file said, and what became of it."""
    detected: bool = False
    """Whether the style was told from the file's names."""

    def lines(self) -> list[str]:
        """What to print."""
        told = [f"{self.out}: {self.tensors} tensors"]
        if self.detected:
            told.append(f"style {self.style}, by the names in the file")
        if self.left_out:
            told.append(f"left out {len(self.left_out)}: {', '.join(self.left_out)}")
        if self.added:
            told.append(f"added {len(self.added)} that the file does not have: {few(self.added)}")
        if self.missing:
            told.append(f"missing {len(self.missing)}, now at their random start: {', '.join(self.missing)}")
        return [*told, *self.notes]


def layout_named(style: str) -> Layout:
    if style not in LAYOUTS:
        raise RecipeError(f"unknown style {style!r}{nearest(style, (OURS, TRANSLATORS, *LAYOUTS))}")
    return LAYOUTS[style]


def agreed(unknown: Sequence[str], asked: Asked, file: Path) -> tuple[str, ...]:
    """`unknown`, if the user agreed to leave all of it out; else WeightsError."""
    refused = [key for key in unknown if not key.startswith(asked.leave_out)]
    if refused:
        raise WeightsError(
            f"{file}: {len(refused)} tensors have no place in the other style ({asked.style}): {few(refused)}; "
            f"is it the right file; to convert without them: --leave-out {shared(refused)}"
        )
    return tuple(unknown)


def shared(keys: Sequence[str]) -> str:
    """The modules that all of these names begin with, `model.decode_head.scale_attention`; else the first one's."""
    parts = [key.split(".") for key in keys]
    same = takewhile(lambda places: len(set(places)) == 1, zip(*parts, strict=False))
    return ".".join(places[0] for places in same) or parts[0][0]


def refuse_idle(leave_out: Sequence[str], keys: Sequence[str]) -> None:
    """RecipeError for a beginning that none of the names has."""
    idle = [start for start in leave_out if not any(key.startswith(start) for key in keys)]
    if idle:
        raise RecipeError(f"--leave-out {idle[0]}: nothing that could be left out begins so; remove it")


def refuse_taken(out: Path, overwrite: bool) -> None:
    """RunError unless a file can be written at `out`."""
    if out.is_dir():
        raise RunError(f"{out} is a folder; name a file")
    if out.exists() and not overwrite:
        raise RunError(f"{out} exists; use --overwrite, or another --out")
