"""Several runs in one table, classes down, runs across, the best of each row marked.

A column is a run folder, or the file of an ensemble's reports (`segda evaluate --ensemble --out`), or, on demand, all
runs that differ in nothing but the seed: their mean ± sample standard deviation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from segda.errors import RunError
from segda.evaluation.measure import reports_of
from segda.evaluation.metrics import Report, read_list
from segda.evaluation.snapshots import ORACLE, Snapshots, read_snapshots
from segda.ground.choices import Weights
from segda.recipes.diff import fingerprint
from segda.recipes.recipe import Recipe
from segda.reporting.tables import names_of, percent
from segda.run import load_recipe_of

ORACLE_ROW = f"mIoU of best snapshot ({ORACLE})"

Key = tuple[str, str]
"""Data set and network ("student", "teacher", see Protocol.whose): numbers of one key stand in one row."""


@dataclass(frozen=True)
class Column:
    """One run, or all seeds of one recipe."""

    title: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    """Of each of the runs; empty for a run that stands for itself."""


@dataclass(frozen=True)
class Cell:
    """One rate in each run of a column that has it, in [0, 1]."""

    rates: tuple[float, ...]
    runs: int
    """How many have been measured at all."""

    @property
    def mean(self) -> float:
        """NaN when no run has it."""
        return float(np.mean(self.rates)) if self.rates else np.nan

    @property
    def deviation(self) -> float:
        """Sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)); NaN for fewer than two runs."""
        return float(np.std(self.rates, ddof=1)) if len(self.rates) > 1 else np.nan

    def text(self) -> str:
        """31.2, or 31.2 ± 1.4, in percent; with (n) where the runs that have it are fewer than those measured."""
        spread = f" ± {percent(self.deviation)}" if len(self.rates) > 1 else ""
        return percent(self.mean) + spread + (f" ({len(self.rates)})" if 0 < len(self.rates) < self.runs else "")


@dataclass(frozen=True)
class Comparison:
    """What was measured of several runs, by data set and weights, then by run name; their snapshots alike."""

    columns: tuple[Column, ...]
    reports: dict[Key, dict[str, Report]]
    snapshots: dict[Key, dict[str, Snapshots]] = field(default_factory=dict)

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all runs, column by column."""
        return tuple(run for column in self.columns for run in column.runs)

    def rows(self, key: Key) -> Iterator[tuple[str, list[Cell]]]:
        """Class or summary -> its rate in each column."""
        measured = self.reports[key]
        iou = {run: dict(zip(report.class_names, report.iou, strict=True)) for run, report in measured.items()}
        for name in dict.fromkeys(name for rates in iou.values() for name in rates):
            yield name, self._cells({run: rates.get(name, np.nan) for run, rates in iou.items()})
        summaries = {run: report.rates() for run, report in measured.items()}
        # In the order of a report with all views.
        longest = max(summaries.values(), key=len)
        for summary in dict.fromkeys([*longest, *(name for rates in summaries.values() for name in rates)]):
            yield summary, self._cells({run: rates.get(summary, np.nan) for run, rates in summaries.items()})

    def oracle(self, key: Key) -> list[Cell]:
        """mIoU of each column's best snapshots; empty when no run has any."""
        found = self.snapshots.get(key, {})
        return self._cells({run: each.mious()[each.best] for run, each in found.items()}) if found else []

    def _cells(self, rates: dict[str, float]) -> list[Cell]:
        cells = []
        for column in self.columns:
            here = [rates[run] for run in column.runs if run in rates]
            cells.append(Cell(tuple(rate for rate in here if not np.isnan(rate)), len(here)))
        return cells

    def counts(self, key: Key) -> list[str]:
        """`n = 3`: how many runs of each column were measured; nothing for a run that stands for itself."""
        return [f"n = {sum(run in self.reports[key] for run in one.runs)}" * bool(one.seeds) for one in self.columns]

    def notes(self) -> list[str]:
        """The protocol behind each column, said once where it is the same for all."""
        lines = []
        for (data, weights), measured in self.reports.items():
            ways = {report.protocol.input() for report in measured.values()}
            for column in self.columns:
                behind: dict[str, list[int]] = {}
                for run, seed in zip(column.runs, column.seeds or (0,), strict=True):
                    if run in measured:
                        behind.setdefault(measured[run].protocol.sentence(), []).append(seed)
                for sentence, seeds in behind.items():
                    lines.append(f"{column.title}{f', {_of(seeds)}' if column.seeds else ''}: {sentence}")
            for run, each in self.snapshots.get((data, weights), {}).items():
                of = "" if weights == "student" else f" of the {weights}"
                lines.append(f"{run}: best of {len(each.by_step)} snapshots{of} on {data}: step {each.best}; {ORACLE}")
            if len(ways) > 1:
                lines.append(f"{data}, {weights}: images are seen in different ways; compare with care")
        return lines

    def legend(self) -> str:
        """What the numbers are."""
        spread = "; mean ± sample standard deviation over n runs that differ in their seed"
        return f"IoU in %{spread if any(column.seeds for column in self.columns) else ''}"

    def table(self) -> Group:
        """For the terminal: IoU and accuracy in percent, the best of a row bold and starred."""
        table = Table()
        table.add_column("class")
        for column in self.columns:
            table.add_column(Text(column.title), justify="right")
        for key in self.reports:
            table.add_section()
            table.add_row(Text(", ".join(key), style="bold"), *(Text(f"{count} ") for count in self.counts(key)))
            for name, row in self.rows(key):
                cells = [
                    Text(f"{cell.text()}{'*' if best else ' '}", style="bold green" if best else "")
                    for cell, best in zip(row, best_of([cell.mean for cell in row]), strict=True)
                ]
                table.add_row(Text(f"  {name}", style="bold" if name == "mIoU" else ""), *cells)
            if oracle := self.oracle(key):
                # No star: nobody could have chosen so.
                table.add_row(Text(f"  {ORACLE_ROW}"), *(f"{cell.text()} " for cell in oracle), style="dim")
        # Below the table, not as its caption, which would be folded to its width.
        return Group(table, Text("\n".join([f"* the best of its row; {self.legend()}", *self.notes()])))

    def markdown(self) -> str:
        """The same as a Markdown table, the best of a row bold, the protocols below."""
        titles = [_plain(column.title) for column in self.columns]
        lines = [_line(["IoU in %", *titles]), _line(["---", *["---:"] * len(titles)])]
        for key in self.reports:
            lines.append(_line([f"**{_plain(', '.join(key))}**", *self.counts(key)]))
            for name, row in self.rows(key):
                marked = zip(row, best_of([cell.mean for cell in row]), strict=True)
                lines.append(
                    _line([_plain(name), *(f"**{cell.text()}**" if best else cell.text() for cell, best in marked)])
                )
            if oracle := self.oracle(key):
                lines.append(_line([_plain(ORACLE_ROW), *(cell.text() for cell in oracle)]))
        said = [self.legend()] if any(column.seeds for column in self.columns) else []
        return "\n".join([*lines, "", *(f"- {_plain(note)}" for note in [*said, *self.notes()])]) + "\n"


def _reports_at(run: Path, step: int, measured: Sequence[Snapshots]) -> list[Report]:
    """What was measured of a run's networks after that step; RunError with the way out when nothing was."""
    found = [each.by_step[step].report for each in measured if step in each.by_step]
    if not found:
        steps = sorted({at for each in measured for at in each.by_step})
        data = measured[0].data if measured else " ".join(load_recipe_of(run).evaluate.data[:1]) or "NAME:SPLIT"
        raise RunError(
            f"{run} has no report of step {step}, but of {', '.join(map(str, steps)) or 'none'}; measure it first: "
            f"segda evaluate {run} --data {data} --all-checkpoints"
        )
    return found


def by_recipe(names: Sequence[str], recipes: Mapping[str, Recipe]) -> list[Column]:
    """One column for all runs whose recipes differ in nothing but the seed, and where the data lie.

    A run without a recipe (an ensemble) is a column of its own. RunError where two are the same in everything: they
    would count twice.
    """
    groups: dict[str, list[str]] = {}
    for name in names:
        alike = fingerprint(recipes[name], Path(name), but=("seed",)) if name in recipes else name
        groups.setdefault(alike, []).append(name)
    titles = [_title(group) for group in groups.values()]
    columns = []
    for group, title in zip(groups.values(), titles, strict=True):
        seeds: dict[int, str] = {}
        for name in (name for name in group if name in recipes):
            other = seeds.setdefault(recipes[name].seed, name)
            if other != name:
                raise RunError(f"{other} and {name} are runs of one recipe and one seed; leave one out")
        columns.append(Column(title if titles.count(title) == 1 else _first(group), tuple(group), tuple(seeds)))
    return columns


def _title(group: Sequence[str]) -> str:
    """The words that the runs' names share: ebda-seed0, ebda-seed1 -> ebda."""
    words = [re.findall(r"[-_/]*[^-_/]+", name) for name in group]
    shared = "".join(word[0] for word in zip(*words, strict=False) if len(set(word)) == 1)
    return shared.lstrip("-_") or _first(group)


def _first(group: Sequence[str]) -> str:
    return group[0] if len(group) == 1 else f"{group[0]} and {len(group) - 1} more"


def _of(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


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


def side_by_side(
    runs: Sequence[Path], seeds: bool = False, weights: Weights | None = None, step: int | None = None
) -> Comparison:
    """The reports of several runs, of all their networks or of `weights` alone, the last or after `step`.

    seeds: runs that differ in nothing but the seed make one column.
    """
    places = {Path(run).resolve(): Path(run) for run in runs}  # a run named twice is one column
    names = names_of(list(places.values()))
    found: dict[Key, dict[str, Report]] = {}
    snapshots: dict[Key, dict[str, Snapshots]] = {}
    recipes: dict[str, Recipe] = {}
    for name, place in zip(names, places.values(), strict=True):
        if place.is_file():
            if step is not None:
                raise RunError(f"{place} is an ensemble's report and knows no --step {step}; leave one of them out")
            reports = read_list(place)
        else:
            recipes[name] = load_recipe_of(place)  # is it a run at all?
            measured = read_snapshots(place)
            reports = reports_of(place) if step is None else _reports_at(place, step, measured)
            for each in measured if step is None else ():
                snapshots.setdefault((each.data, each.weights), {})[name] = each
        for report in (one for one in reports if weights in (None, one.protocol.weights)):
            found.setdefault((report.protocol.data, report.protocol.whose), {})[name] = report
    if not found:
        raise RunError(f"none of these runs has a report of a {weights}; leave --weights {weights} out")
    columns = by_recipe(names, recipes) if seeds else [Column(name, (name,)) for name in names]
    return Comparison(tuple(columns), found, snapshots)
