"""Reports as tables for the terminal, always with their protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.data.sets.inspection import DataReport
from segda.errors import visible
from segda.evaluation.protocol import Protocol
from segda.evaluation.snapshots import LAST, ORACLE, Snapshots


def snapshots_table(measured: Snapshots, run: str) -> Table:
    """A row a step: the summary rates (%), and which step is the run's result and which an oracle's choice."""
    first = measured.by_step[measured.last].report
    assert isinstance(first.protocol, Protocol)  # one run's
    sentence = Text(replace(first.protocol, step=None).sentence())
    table = Table(title=Text(f"{run}  {measured.data}"), caption=sentence, title_justify="left", caption_justify="left")
    table.add_column("step", justify="right")
    for name in first.rates():
        table.add_column(Text(name), justify="right")
    table.add_column("")
    for step in measured.mious():
        notes = [LAST] * (step == measured.last) + [ORACLE] * (step == measured.best)
        rates = map(percent, measured.by_step[step].report.rates().values())
        table.add_row(str(step), *rates, "; ".join(notes), style="bold" if step == measured.last else "")
    return table


def percent(rate: float) -> str:
    """0.61234 -> 61.2; a dash where there is nothing to rate."""
    return "-" if np.isnan(rate) else f"{100 * rate:.1f}"


def points(difference: float) -> str:
    """0.086 -> +8.6, in percentage points; a dash where there is nothing to compare."""
    text = "-" if np.isnan(difference) else f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text


def names_of(runs: Sequence[Path]) -> list[str]:
    """The names of folders and, without suffix, of files, or their whole paths where two are called the same."""
    short = [run.resolve().stem if run.is_file() else run.resolve().name for run in runs]
    return [visible(str(run) if short.count(name) > 1 else name) for run, name in zip(runs, short, strict=True)]


LISTED = 20
"""Faults of one kind that are printed; the report holds all of them."""


def data_table(report: DataReport) -> Group:
    """The report for a terminal."""
    sizes = ", ".join(f"{count} of {w}x{h}" for (w, h), count in report.sizes.most_common(4))
    more = f" and {len(report.sizes) - 4} more sizes" if len(report.sizes) > 4 else ""
    head = Text()
    for doubt in report.doubts:
        head.append(f"? {doubt}\n", style="bold yellow")
    head.append(f"{report.spec}  {report.where}\n{report.images} images, {report.labels} labels\n")
    head.append(f"sizes: {sizes or 'none readable'}{more}")
    for note in report.notes:
        head.append(f"\n{note}")
    parts: list[Text | Table] = [head]
    if report.class_counts.sum():
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for title in ("share", "pixels", "images"):
            table.add_column(title, justify="right")
        rows = zip((*report.classes, "ignored"), report.class_counts, report.seen, strict=True)
        for name, pixels, images in rows:
            share = f"{100 * pixels / report.class_counts.sum():.2f} %" if pixels else "-"
            table.add_row(Text(name), share, f"{pixels}", f"{images}")
        parts.append(table)
    for kind, lines in report.faults.items():
        parts.append(Text(f"{len(lines)} {kind}:", style="bold red"))
        parts += [Text(f"  {line}") for line in lines[:LISTED]]
        if len(lines) > LISTED:
            parts.append(Text(f"  and {len(lines) - LISTED} more"))
    if report.sheet is not None:
        parts.append(Text(f"contact sheet: {report.sheet}"))
    if report.no_sheet:
        parts.append(Text(f"no contact sheet: {report.no_sheet} with --out"))
    parts.append(Text(report.verdict, style="bold green" if report.usable else "bold red"))
    return Group(*parts)


def pseudo_labels_table(summary: Mapping[str, Any]) -> Table:
    """A row a class: its share of the predicted pixels, threshold, share kept and median score; accuracies if known."""
    scored = summary.get("score")
    score = summary["score_of_a_pixel"]
    rule = ", ".join(f"{key} {value}" for key, value in summary["rule"].items() if key != "name")
    sizes = f"{summary['images']} images, {summary['rule']['name']} ({rule})"
    # As Text: square brackets in a name are no markup, and ":train:" no emoji.
    caption = Text(sizes + (f"; accuracy: {scored['note']}" if scored else ""))
    made = Table(title=Text(summary["data"]), caption=caption, title_justify="left", caption_justify="left")
    made.add_column("class")
    for column in (
        "share",
        f"{score}: threshold",
        "median",
        "kept",
        *(("acc. predicted", "acc. kept") if scored else ()),
    ):
        made.add_column(column, justify="right")
    last = len(summary["classes"])
    for number, each in enumerate(summary["classes"], 1):
        low, high = min(each["thresholds"]), max(each["thresholds"])
        bounds = f"{low:.3f}" if low == high else f"{low:.3f} to {high:.3f}"
        there = each["pixels"] > 0
        cells = [percent(each["pixels"] / summary["pixels"]), bounds]
        cells += [f"{each['quantiles']['50']:.3f}", percent(each["kept_share"])] if there else ["-", "-"]
        if scored:
            cells += _accuracies(scored["classes"][each["name"]])
        made.add_row(Text(each["name"]), *cells, end_section=number == last)
    total = ["", "", "", percent(summary["kept_share"]), *(_accuracies(scored) if scored else ())]
    made.add_row("all pixels", *total, style="bold")
    return made


def _accuracies(rates: Mapping[str, float | None]) -> list[str]:
    return ["-" if (rate := rates[key]) is None else percent(rate) for key in ("accuracy_predicted", "accuracy_kept")]
