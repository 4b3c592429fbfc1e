"""`segda check-data`: is this data set whole, and what is in it: counts, sizes, class shares, faults, a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segda.data.labels.spaces import Space
from segda.data.sets.datasets import open_data
from segda.data.sets.inspection import DataReport, inspect
from segda.data.sets.specs import file_name
from segda.ground.atomic import atomic_write
from segda.reporting.contact_sheet import data_sheet

SHEET_IMAGES = 12


def check_data(
    spec: str,
    root: Path | None = None,
    space: Space | None = None,
    out: Path | None = None,
) -> DataReport:
    """Read every file of `name:split[:condition]` and report on it; with `out`, draw a contact sheet into that folder.

    RecipeError or DataError only if there is nothing to read: unknown name, missing folder, empty split.
    """
    data = open_data(spec, root, space)
    report, sound = inspect(data)
    if out is not None and sound:
        report.sheet = out / f"{file_name(spec)}.png"
        chosen = [sound[k] for k in np.linspace(0, len(sound) - 1, min(SHEET_IMAGES, len(sound))).astype(int)]
        picture = data_sheet(data, chosen, report)
        with atomic_write(report.sheet) as partial:
            picture.save(partial, format="PNG")
    return report
