"""Reports as tables for the terminal, always with their protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from segda.errors import visible
from segda.evaluation.metrics import Report
from segda.evaluation.snapshots import LAST, ORACLE, Snapshots


def tables(reports: Sequence[Report], run: str = "") -> list[Table]:
    """One table a data set: a row a class, IoU and accuracy (%) of each network, the protocol below.

    run: said in the titles, where there are several.
    """
    done = []
    for data in dict.fromkeys(report.protocol.data for report in reports):
        here = [report for report in reports if report.protocol.data == data]
        names = here[0].class_names
        # As Text: square brackets in a name are no markup, and ":train:" no emoji.
        protocol = Text("\n".join(report.protocol.sentence() for report in here))
        table = Table(
            title=Text(f"{run}  {data}" if run else data),
            caption=protocol,
            title_justify="left",
            caption_justify="left",
        )
        table.add_column("class")
        table.add_column("share", justify="right")
        for report in here:
            table.add_column(f"IoU {report.protocol.weights}", justify="right")
            table.add_column(f"acc. {report.protocol.weights}", justify="right")
        for index, name in enumerate(names):
            rates = [rate for report in here for rate in (report.iou[index], report.accuracy[index])]
            cells = [percent(rate) for rate in (here[0].share[index], *rates)]
            table.add_row(Text(name), *cells, end_section=index + 1 == len(names))
        means = [rate for report in here for rate in (report.miou, report.mean_accuracy)]
        table.add_row("mean", "", *map(percent, means), style="bold")
        for view in here[0].views:
            cells = [cell for report in here for cell in (percent(report.view(view)), "")]
            table.add_row(Text(view), "", *cells, style="bold")
        pixels = [cell for report in here for cell in ("", percent(report.pixel_accuracy))]
        table.add_row("all pixels", "", *pixels)
        done.append(table)
    return done


def snapshots_table(measured: Snapshots, run: str) -> Table:
    """A row a step: the summary rates (%), and which step is the run's result and which an oracle's choice."""
    first = measured.by_step[measured.last].report
    protocol = Text(replace(first.protocol, step=None).sentence())
    table = Table(title=Text(f"{run}  {measured.data}"), caption=protocol, title_justify="left", caption_justify="left")
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


def names_of(runs: Sequence[Path]) -> list[str]:
    """The names of folders and, without suffix, of files, or their whole paths where two are called the same."""
    short = [run.resolve().stem if run.is_file() else run.resolve().name for run in runs]
    return [visible(str(run) if short.count(name) > 1 else name) for run, name in zip(runs, short, strict=True)]
