"""What `segda select` and `segda adapt` found, as tables for the terminal."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.evaluation.selection import SOURCE, Selection, highest
from segda.evaluation.snapshots import ORACLE
from segda.online.adapt import Adapted
from segda.reporting.tables import names_of, percent, points

RATES = (SOURCE, "agreement", "mixval")
"""Criteria that are shares of one, shown in percent."""


def selection_table(selection: Selection) -> Group:
    """A row a candidate: what each criterion says, with the rank; then what is taken, and what each was worth."""
    runs = list(dict.fromkeys(one.run for one in selection.candidates))
    names = dict(zip(runs, names_of(runs), strict=True))
    titles = [_title(names[one.run], one.weights, one.step) for one in selection.candidates]
    table = Table(title=Text(f"{selection.data}, {selection.images} images"), title_justify="left")
    table.add_column("candidate")
    for name in selection.scores:
        table.add_column(Text(f"{name} {'↑' if highest(name) else '↓'}"), justify="right")
    if selection.oracle:
        table.add_column(Text("mIoU (oracle)"), justify="right")
    every = {name: selection.ranks(name) for name in selection.scores}
    chosen = selection.choice(selection.by)
    for i, title in enumerate(titles):
        cells = [_cell(name, of[i], every[name][i]) for name, of in selection.scores.items()]
        cells += [percent(selection.mious[i])] if selection.oracle else []
        table.add_row(Text(title), *cells, style="bold" if i == chosen else "")
    assert chosen is not None
    parts: list[Table | Text] = [table]
    if selection.oracle:
        parts.append(_worth(selection, titles))
    if selection.source:
        parts.append(Text(f"source: mIoU on {selection.source}"))
    said = f"chosen by {selection.by}: {titles[chosen]} of {len(titles)} candidates"
    return Group(*parts, Text(f"{said}; no target label chose", style="bold"), Text(_way(selection)))


def _worth(selection: Selection, titles: list[str]) -> Table:
    """A row a criterion: how its order agrees with the mIoU's, what it takes, and how far below the best that is."""
    caption = Text(f"mIoU on {selection.oracle}: its labels say what a criterion was worth, and chose nothing")
    table = Table(caption=caption, caption_justify="left", title_justify="left")
    for title in ("criterion", "rank correlation", "takes", "mIoU", "regret (points)"):
        table.add_column(title, justify="left" if title in ("criterion", "takes") else "right")
    for name in selection.scores:
        choice = selection.choice(name)
        cells = ["-", "-", "-", "-"]
        if choice is not None:
            regret = selection.regret(name)
            cells = [
                _number(selection.correlation(name)), titles[choice], percent(selection.mious[choice]), percent(regret),
            ]  # fmt: skip
        table.add_row(name, *map(Text, cells))
    known = [miou for miou in selection.mious if not math.isnan(miou)]
    if known:
        best = selection.mious.index(max(known))
        table.add_row(Text("the labels"), "", Text(titles[best]), percent(max(known)), Text(ORACLE))
    return table


def _title(name: str, weights: str, step: int | None) -> str:
    return f"{name} {weights}{'' if step is None else f' {step}'}"


def _cell(criterion: str, score: float, rank: float) -> str:
    """The score, and its rank in brackets; a dash where there is none."""
    if math.isnan(score):
        return "-"
    shown = percent(score) if criterion in RATES else f"{score:.3f}"
    return f"{shown} ({rank:g})"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.2f}"


def _way(selection: Selection) -> str:
    """How to use the chosen network."""
    one = selection.chosen
    options = ("" if one.last else f" --step {one.step}") + ("" if one.weights == "student" else " --weights teacher")
    return f"use it: segda predict {Path(one.run)} IMAGES --out DIR{options}"


def online_table(found: Adapted) -> Table:
    """IoU of each class and mIoU: of the network as it is, of its predictions on the way, and the difference."""
    before, online = found.before, found.online
    assert before is not None and online is not None
    settings = ", ".join(f"{key} {value}" for key, value in found.spec.items() if key != "name")
    episodic = ", anew with each image" if found.episodic else ""
    title = f"{found.data}, {found.images} images in their order: {found.spec['name']}{episodic}"
    caption = Text(f"{settings}; before: {before.protocol.sentence()}")
    table = Table(title=Text(title), caption=caption, title_justify="left", caption_justify="left")
    table.add_column("IoU (%)")
    for column in ("before", "online", "difference"):
        table.add_column(column, justify="right")
    rows = [*zip(before.class_names, before.iou, online.iou, strict=True), ("mIoU", before.miou, online.miou)]
    for name, one, other in rows:
        style = "bold" if name == "mIoU" else ""
        table.add_row(Text(name), percent(one), percent(other), points(other - one), style=style)
    return table
