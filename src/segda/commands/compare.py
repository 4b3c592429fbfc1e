"""`segda compare`: several runs in one table, see reporting/comparison.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.ground.choices import Weights
from segda.reporting.comparison import Comparison, side_by_side


def compare(
    runs: Sequence[Path], seeds: bool = False, weights: Weights | None = None, step: int | None = None
) -> Comparison:
    """Put several runs beside each other: one table of their reports, classes down, runs across.

    Only the run folders' reports are read; measure a run first with segda evaluate RUN --data NAME:SPLIT. An ensemble's
    file of reports (segda evaluate --ensemble --out FILE.json) is a column like a run. A star (bold in Markdown) marks
    the best of each row where at least two columns have a number. seeds: runs that differ in nothing but the seed make
    one column, their mean ± sample standard deviation. weights: the students' or the teachers' numbers alone. step:
    those after that step, which segda evaluate RUN --all-checkpoints has measured.
    """
    return side_by_side(runs, seeds, weights, step)
