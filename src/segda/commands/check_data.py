"""`segda check-data`: is this data set whole, and what is in it: counts, sizes, class shares, faults, a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Root, Space

if TYPE_CHECKING:
    from segda.data.sets.inspection import DataReport

SHEET_IMAGES = 12

WRITER = "segda check-data"
"""Signs the contact sheet."""


def check_data(
    spec: Annotated[str, typer.Argument(metavar="NAME:SPLIT[:CONDITION]", help="The data to look at.")],
    root: Root = None,
    space: Space | None = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the contact sheet [default: check-data].")] = None,
) -> DataReport:
    """Look through a data set before training on it: counts, sizes, classes, and every file that cannot be used.

    Writes a contact sheet (image beside its labels) to look at. Exit code 1 when the data cannot be used.
    """
    from segda.commands.names import look_up_data

    look_up_data([spec])

    import numpy as np

    from segda.data.files.signed import is_signed, signature
    from segda.data.sets.datasets import open_data
    from segda.data.sets.inspection import inspect
    from segda.data.sets.specs import file_name
    from segda.errors import RunError
    from segda.ground.atomic import atomic_write
    from segda.reporting.contact_sheet import data_sheet
    from segda.run import data_root

    data = open_data(spec, data_root(None, root), space)
    report, sound = inspect(data)
    if out is not None and sound:
        path = out / f"{file_name(spec)}.png"
        chosen = [sound[k] for k in np.linspace(0, len(sound) - 1, min(SHEET_IMAGES, len(sound))).astype(int)]
        picture = data_sheet(data, chosen, report)
        try:
            if path.exists() and not is_signed(path, WRITER):
                raise RunError(f"{path} is there, and segda check-data did not write it; choose another --out")
            with atomic_write(path) as partial:
                picture.save(partial, format="PNG", pnginfo=signature(WRITER))
            report.sheet = path
        except RunError as error:  # what was read of all files is not lost for a picture
            report.no_sheet = str(error)
    return report
