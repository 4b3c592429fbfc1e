"""`segda sweep`: the runs of a sweep file, one after the other, see training/sweep.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.training.sweep import Outcome, plan, train_all


def sweep(
    file: Path | str,
    out: Path | None = None,
    settings: Sequence[str] = (),
    root: Path | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> Outcome:
    """Train every combination of the axes of FILE (a shipped sweep's name or a YAML file), one after the other.

    out: folder of the run folders, instead of the file's. settings: KEY=VALUE, changed in all runs.
    """
    return train_all(plan(file, out, settings, root, device, precision))
