"""`segda compare`: several runs in one table, see reporting/comparison.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from segda.reporting.comparison import Comparison, side_by_side


def compare(runs: Sequence[Path], seeds: bool = False) -> Comparison:
    """Put several runs beside each other: one table of their reports, classes down, runs across.

    Only the run folders' reports are read; measure a run first with segda evaluate RUN --data NAME:SPLIT. An ensemble's
    file of reports (segda evaluate --ensemble --out FILE.json) is a column like a run. A star (bold in Markdown) marks
    the best of each row where at least two columns have a number. seeds: runs that differ in nothing but the seed make
    one column, their mean ± sample standard deviation.
    """
    return side_by_side(runs, seeds)
