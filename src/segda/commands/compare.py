"""`segda compare`: several runs in one table, classes down, runs across, the best of each row marked.

A column is a run folder, or the file of an ensemble's reports (`segda evaluate --ensemble --out`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.commands.evaluate import reports_of
from segda.commands.tables import names_of, percent
from segda.evaluation.metrics import Report, read_list
from segda.evaluation.snapshots import ORACLE, Snapshots, read_snapshots
from segda.run import load_recipe_of

ORACLE_ROW = f"mIoU of best snapshot ({ORACLE})"

Key = tuple[str, str]
"""Data set and weights ("student", "teacher"): numbers of one key stand in one row."""


@dataclass(frozen=True)
class Comparison:
    """What was measured of several runs, by data set and weights, then by run name; their snapshots alike."""

    runs: tuple[str, ...]
    reports: dict[Key, dict[str, Report]]
    snapshots: dict[Key, dict[str, Snapshots]] = field(default_factory=dict)

    def rows(self, key: Key) -> Iterator[tuple[str, list[float]]]:
        """Class or summary -> its rate in each run; NaN where a run has none."""
        measured = self.reports[key]
        iou = {run: dict(zip(report.class_names, report.iou, strict=True)) for run, report in measured.items()}
        for name in dict.fromkeys(name for rates in iou.values() for name in rates):
            yield name, [iou[run].get(name, np.nan) if run in iou else np.nan for run in self.runs]
        summaries = {run: report.rates() for run, report in measured.items()}
        # In the order of a report with all views.
        longest = max(summaries.values(), key=len)
        for summary in dict.fromkeys([*longest, *(name for rates in summaries.values() for name in rates)]):
            yield summary, [summaries.get(run, {}).get(summary, np.nan) for run in self.runs]

    def oracle(self, key: Key) -> list[float]:
        """mIoU of each run's best snapshot, NaN where a run has none; empty when no run has any."""
        found = self.snapshots.get(key, {})
        return [found[run].mious()[found[run].best] if run in found else np.nan for run in self.runs if found]

    def notes(self) -> list[str]:
        """The protocol behind each column, said once where it is the same for all."""
        lines = []
        for (data, weights), measured in self.reports.items():
            ways = {report.protocol.input() for report in measured.values()}
            for run, report in measured.items():
                lines.append(f"{run}: {report.protocol.sentence()}")
            for run, each in self.snapshots.get((data, weights), {}).items():
                lines.append(f"{run}: best of {len(each.by_step)} snapshots on {data}: step {each.best}; {ORACLE}")
            if len(ways) > 1:
                lines.append(f"{data}, {weights}: images are seen in different ways; compare with care")
        return lines

    def table(self) -> Group:
        """For the terminal: IoU and accuracy in percent, the best of a row bold and starred."""
        table = Table()
        table.add_column("class")
        for run in self.runs:
            table.add_column(Text(run), justify="right")
        for key in self.reports:
            table.add_section()
            table.add_row(Text(", ".join(key), style="bold"))
            for name, rates in self.rows(key):
                cells = [
                    Text(f"{percent(rate)}{'*' if best else ' '}", style="bold green" if best else "")
                    for rate, best in zip(rates, best_of(rates), strict=True)
                ]
                table.add_row(Text(f"  {name}", style="bold" if name == "mIoU" else ""), *cells)
            if oracle := self.oracle(key):
                # No star: nobody could have chosen so.
                table.add_row(Text(f"  {ORACLE_ROW}"), *(f"{percent(rate)} " for rate in oracle), style="dim")
        # Below the table, not as its caption, which would be folded to its width.
        return Group(table, Text("\n".join(["* the best of its row; IoU in %", *self.notes()])))

    def markdown(self) -> str:
        """The same as a Markdown table, the best of a row bold, the protocols below."""
        lines = [_line(["IoU in %", *map(_plain, self.runs)]), _line(["---", *["---:"] * len(self.runs)])]
        for key in self.reports:
            lines.append(_line([f"**{_plain(', '.join(key))}**", *[""] * len(self.runs)]))
            for name, rates in self.rows(key):
                marked = zip(map(percent, rates), best_of(rates), strict=True)
                lines.append(_line([_plain(name), *(f"**{cell}**" if best else cell for cell, best in marked)]))
            if oracle := self.oracle(key):
                lines.append(_line([_plain(ORACLE_ROW), *map(percent, oracle)]))
        return "\n".join([*lines, "", *(f"- {_plain(note)}" for note in self.notes())]) + "\n"


def compare(runs: Sequence[Path]) -> Comparison:
    """Put several runs beside each other: one table of their reports, classes down, runs across.

    Only the run folders' reports are read; measure a run first with segda evaluate RUN --data NAME:SPLIT. An ensemble's
    file of reports (segda evaluate --ensemble --out FILE.json) is a column like a run. A star (bold in Markdown) marks
    the best of each row where at least two runs have a number.
    """
    places = {Path(run).resolve(): Path(run) for run in runs}  # a run named twice is one column
    names = names_of(list(places.values()))
    found: dict[Key, dict[str, Report]] = {}
    snapshots: dict[Key, dict[str, Snapshots]] = {}
    for name, place in zip(names, places.values(), strict=True):
        if place.is_file():
            reports = read_list(place)
        else:
            load_recipe_of(place)  # is it a run at all?
            reports = reports_of(place)
            for each in read_snapshots(place):
                snapshots.setdefault((each.data, "student"), {})[name] = each
        for report in reports:
            found.setdefault((report.protocol.data, report.protocol.weights), {})[name] = report
    return Comparison(tuple(names), found, snapshots)


def best_of(rates: Sequence[float]) -> list[bool]:
    """Which rates are the row's highest; none when fewer than two are known or all known ones are equal."""
    known = [rate for rate in rates if not np.isnan(rate)]
    if len(known) < 2 or min(known) == max(known):
        return [False] * len(rates)
    return [rate == max(known) for rate in rates]


def _plain(text: str) -> str:
    """Text that Markdown shows as it is, in one table cell."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
