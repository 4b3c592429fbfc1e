"""`segda prepare`: labels as train ids and class statistics as files, as DAFormer's and EB_DA's tools read them.

Nothing here needs them: labels are mapped when they are read, and training counts by itself.

OUT/labels/00001_labelTrainIds.png     8-bit train ids, in the data set's tree, named as the authors' converters do
OUT/sample_class_stats.json            [{"0": pixels, ..., "file": label}, ...], what classes each image has
OUT/sample_class_stats_dict.json       {label: {"0": pixels, ...}, ...}
OUT/samples_with_class.json            {"0": [[label, pixels], ...], ...}
OUT/train.txt, val.txt, test.txt       of Cityscapes alone: CITY/KEY of each image

Unlike the authors' converters, ours lists Cityscapes in order, and refuses ids that the labelling does not name.
"""

from __future__ import annotations

from pathlib import Path

from segda.data.sets.prepared import (
    Prepared,
    write_prepared,
)
from segda.errors import RecipeError
from segda.run import data_root


def prepare(
    spec: str,
    root: Path | None = None,
    out: Path | None = None,
    in_place: bool = False,
    space: str | None = None,
    statistics_only: bool = False,
    workers: int | None = None,
) -> Prepared:
    """Write labels and statistics of `name` or `name:split[:condition]` into `out`, or beside the data's own labels.

    space: what the ids mean; by default Cityscapes' 19 classes where the data set has no others, else its own space.
    Without a split: the labels of all that have some, and the statistics of `train`. Repeated, it goes on where it was;
    no file that is there is replaced. RecipeError for what cannot be written, DataError for labels that cannot be read,
    RunError where files of other content are in the way.
    """
    if in_place and out is not None:
        raise RecipeError("--cache writes beside the data's own labels and --out elsewhere; give one of them")
    return write_prepared(spec, data_root(None, root), out, in_place, space, statistics_only, workers)
