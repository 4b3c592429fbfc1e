"""`segda report`: a run on one self-contained page: numbers, curves, IoU bars, pictures of what it sees."""

from __future__ import annotations

from pathlib import Path

from segda.ground.choices import DeviceName, Weights
from segda.reporting.html import write_report


def report(
    run: Path,
    against: Path | None = None,
    device: DeviceName = "auto",
    root: Path | None = None,
    weights: Weights = "student",
    step: int | None = None,
) -> Path:
    """Write RUN/report.html: results, curves, IoU of each class and pictures of a dozen validation images.

    With --against, a source-only run stands beside it in tables, bars and pictures. The page is one file that
    needs nothing else. Its tables come from the run's reports (segda evaluate), its pictures from the first
    data set in the recipe's evaluate.data: what the student sees, or the network that `weights` and `step` name.
    """
    return write_report(Path(run), against, device, root, weights, step)
