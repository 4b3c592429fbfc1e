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
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Root, Workers
from segda.errors import RecipeError

if TYPE_CHECKING:
    from segda.data.sets.prepared import Prepared


def prepare(
    spec: Annotated[str, typer.Argument(metavar="NAME[:SPLIT]", help="The data set, or one split of it.")],
    root: Root = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write [default: prepared/NAME].")] = None,
    in_place: Annotated[bool, typer.Option("--cache", help="Write beside the data's own labels instead.")] = False,
    space: Annotated[
        str | None,
        typer.Option(help="What the ids mean [default: cityscapes-19 where the data have no other classes]."),
    ] = None,
    statistics_only: Annotated[bool, typer.Option("--statistics-only", help="Write no labels.")] = False,
    workers: Workers = None,
) -> Prepared:
    """Write labels as train ids, and class statistics, as the tools of DAFormer and EB_DA read them.

    Without a split: the labels of all splits that have some, and the statistics of train. Interrupted, it goes on where
    it was when it is called again. Nothing that is there is replaced.
    """
    from segda.data.sets.prepared import write_prepared
    from segda.run import data_root

    if in_place and out is not None:
        raise RecipeError("--cache writes beside the data's own labels and --out elsewhere; give one of them")
    return write_prepared(spec, data_root(None, root), out, in_place, space, statistics_only, workers)
