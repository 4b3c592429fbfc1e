"""The table of data sets: where their images and labels lie, what the ids mean, which splits there are.

To add a data set, add a row, and a labelling in data/labels/labellings.py if its ids are new. Rows stand in the file of
their kind: cityscapes.py, adverse.py (bad weather and night), driving.py (everyday streets), rendered.py.
"""

from __future__ import annotations

from segda.data.rows.adverse import ADVERSE
from segda.data.rows.cityscapes import CITYSCAPES
from segda.data.rows.driving import DRIVING
from segda.data.rows.rendered import RENDERED
from segda.data.rows.row import Archive, Listed, Row

__all__ = ["DATASETS", "Archive", "Listed", "Row"]

DATASETS: dict[str, Row] = dict(sorted({**ADVERSE, **CITYSCAPES, **DRIVING, **RENDERED}.items()))
