"""Labels whose ids are none of what the file's name says: label ids for train ids, train ids for label ids.

Train ids (0 road ... 18 bicycle) in a file of label ids give no error by themselves: 0 is unlabelled there and 7 road,
so that a network learns nonsense (LeonWlw/IAST#3: mIoU 0.5 %).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from segda.data.labels.labellings import LABELLINGS
from segda.data.labels.spaces import UNKNOWN
from segda.data.sets.folders import OWN
from segda.errors import DataError
from segda.ground.ignore import IGNORE

LABEL_IDS = frozenset({"cityscapes", "gta5"})
VOID = slice(0, 7)  # of label ids: unlabelled to ground; of train ids: road to traffic light
BOTH = slice(7, 19)  # classes in both
HIGH = slice(19, 34)  # of label ids alone: traffic light, sign, vegetation, sky, person, cars
MANY = 16
"""Unknown ids in a label of one's own are more likely no ids at all."""

VOID_SHARE = 1 / 3
"""Hardly a picture of a street is without plants, sky, cars, signs and people, and a third of it void."""


def refuse_train_ids(spec: str, path: Path, labelling: str, ids: np.ndarray) -> None:
    """DataError for a file that should hold label ids and holds train ids, as far as its ids can tell."""
    if labelling not in LABEL_IDS:
        return
    few = ids[::8, ::8]
    if ((few >= HIGH.start) & (few < HIGH.stop)).any():
        return
    counts = np.bincount(ids.ravel(), minlength=256)
    if counts[HIGH].any() or not counts[BOTH].any():
        return
    if counts[VOID].sum() > VOID_SHARE * counts[:IGNORE].sum():
        raise DataError(
            f"{spec}: {path} should hold label ids (7 road ... 33 bicycle) and seems to hold train ids (0 road ... 18 "
            "bicycle); use the data set's own files, or call train ids labelTrainIds in the file's name"
        )


def unknown_ids(spec: str, path: Path | str, labelling: str, counts: np.ndarray, table: np.ndarray) -> DataError:
    """The error of a label with ids that its labelling does not name. counts, table: of its ids."""
    unknown = np.flatnonzero((table == UNKNOWN) & (counts > 0))
    ids = ", ".join(f"{id} ({counts[id]} pixels)" for id in unknown[:4]) + (", ..." if len(unknown) > 4 else "")
    if labelling == "cityscapes-train" and set(np.flatnonzero(counts)) <= {*LABELLINGS["cityscapes"], IGNORE}:
        return DataError(
            f"{spec}: {path} has id {ids}, which are label ids where train ids (0 to 18) should be; use the data set's "
            "files of train ids, or call label ids labelIds in the file's name"
        )
    if labelling == OWN:
        if len(unknown) > MANY:
            return DataError(
                f"{spec}: {path} has id {ids}: {len(unknown)} that no class has, as pictures have that number single "
                "things or are no labels; export one id a class"
            )
        listed = ", ".join(map(str, unknown))
        return DataError(
            f"{spec}: {path} has id {ids}, which no class has; give it to one in the YAML file, or write ignored: "
            f"[{listed}]"
        )
    return DataError(
        f"{spec}: {path} has id {ids}, which labelling {labelling!r} does not name; use the data set's official id "
        "files, or name the id in data/labels/labellings.py"
    )
