"""Several runs beside each other: mIoU on each data set, what changed against the first run, each class on demand.

A column is a run folder, or the file of an ensemble's reports (`segda evaluate --ensemble --out`), or, on demand, all
runs that differ in nothing but the seed: their mean ± sample standard deviation. The first one is the baseline.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
from rich.console import Group
from rich.text import Text

from segda.errors import RunError
from segda.evaluation.domains import Domain, domains_of, with_domain
from segda.evaluation.measure import outdated, reports_of
from segda.evaluation.metrics import Report, read_list
from segda.evaluation.snapshots import ORACLE, Snapshots, read_snapshots
from segda.ground.choices import Weights
from segda.recipes.diff import fingerprint
from segda.recipes.recipe import Recipe
from segda.reporting.gain import gain_lines
from segda.reporting.grids import Grid, Line, Section, Shown, best_of, markdown, plain, terminal
from segda.reporting.tables import names_of, percent, points
from segda.run import load_recipe_of

DIFFERENCE = "difference"
"""Title of the column beside a rate: how many points it is above the baseline's."""

Key = tuple[str, str]
"""Data set and network: "student", "teacher", "student with statistics of DATA", see Protocol.whose."""


@dataclass(frozen=True)
class Column:
    """One run, or all seeds of one recipe."""

    title: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...] = ()
    """Of each of the runs; empty for a run that stands for itself."""

    def by_seed(self) -> list[tuple[int | None, str]]:
        """The runs with their seeds, None for a run that stands for itself."""
        return list(zip(self.seeds or (None,), self.runs, strict=True))


@dataclass(frozen=True)
class Entry:
    """The networks of a column that have a row (or a column) of their own: its students, its teachers, either with the
    statistics of other data.

    oracle: of each run the best snapshot on the data set, which the labels have chosen.
    """

    column: Column
    network: str
    oracle: bool = False

    @property
    def title(self) -> str:
        """ebda; ebda, teacher; ebda, with statistics of camvid:train:dusk."""
        network = self.network.removeprefix("student").lstrip()
        snapshot = f", best snapshot ({ORACLE})" if self.oracle else ""
        return self.column.title + (f", {network}" if network else "") + snapshot


@dataclass(frozen=True)
class Cell:
    """One rate in [0, 1], or the difference of two, in each run of a column that has it, by seed."""

    rates: Mapping[int | None, float]
    runs: int
    """How many have been measured at all."""

    @property
    def mean(self) -> float:
        """NaN when no run has it."""
        return float(np.mean(list(self.rates.values()))) if self.rates else np.nan

    @property
    def deviation(self) -> float:
        """Sample standard deviation, sqrt(sum (x - mean)^2 / (n - 1)); NaN for fewer than two runs."""
        return float(np.std(list(self.rates.values()), ddof=1)) if len(self.rates) > 1 else np.nan

    def text(self, say: Callable[[float], str] = percent) -> str:
        """31.2, or 31.2 ± 1.4, in percent; with (n) where the runs that have it are fewer than those measured."""
        spread = f" ± {percent(self.deviation)}" if len(self.rates) > 1 else ""
        return say(self.mean) + spread + (f" ({len(self.rates)})" if 0 < len(self.rates) < self.runs else "")

    def minus(self, base: Cell) -> Cell:
        """The difference of each two runs of one seed; without a seed in common, that of the means."""
        if both := [seed for seed in self.rates if seed in base.rates]:
            return Cell({seed: self.rates[seed] - base.rates[seed] for seed in both}, len(self.rates))
        return Cell({None: self.mean - base.mean} if self.rates and base.rates else {}, 1)


@dataclass(frozen=True)
class Comparison:
    """What was measured of several runs, by data set and weights, then by run name; their snapshots alike.

    domains: of each data set that was measured, in the order of the tables.
    """

    columns: tuple[Column, ...]
    domains: Mapping[str, Domain]
    reports: dict[Key, dict[str, Report]]
    snapshots: dict[Key, dict[str, Snapshots]] = field(default_factory=dict)
    outdated: tuple[str, ...] = ()
    """What was measured before the run was trained on."""

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of all runs, column by column."""
        return tuple(run for column in self.columns for run in column.runs)

    def title(self, data: str) -> str:
        """`streets:val:night (target)`."""
        return with_domain(data, self.domains[data])

    def entries(self, data: str, everything: bool = False) -> list[Entry]:
        """What is compared on a data set, the baseline first: of each column the student, where it was measured, and
        the student with the statistics of other data.

        everything: the teachers and the best snapshots, too.
        """
        found = []
        # In this order: student, student with statistics, teacher.
        networks = sorted(network for spec, network in self.reports if spec == data)
        for column in self.columns:
            there = [each for each in networks if self.measured(data, Entry(column, each))]
            students = [each for each in there if each.startswith("student")]
            shown = there if everything else students or there[:1]
            found += [Entry(column, each) for each in shown or ["student"]]
            snapshots = [Entry(column, each, oracle=True) for each in shown if everything]
            found += [one for one in snapshots if self.measured(data, one)]
        return found

    def leading(self, data: str) -> list[Entry]:
        """The first entry of each column."""
        entries = self.entries(data)
        return [next(entry for entry in entries if entry.column is column) for column in self.columns]

    def measured(self, data: str, entry: Entry) -> dict[int | None, Report]:
        """Seed -> report of an entry's networks on a data set; of an oracle's choice that of the snapshot."""
        if entry.oracle:
            kept = self.snapshots.get((data, entry.network), {})
            found = {run: each.by_step[each.best].report for run, each in kept.items()}
        else:
            found = self.reports.get((data, entry.network), {})
        return {seed: found[run] for seed, run in entry.column.by_seed() if run in found}

    def of_class(self, data: str, entry: Entry, name: str) -> Cell:
        """IoU of a class."""
        return self._cell(data, entry, lambda report: dict(zip(report.class_names, report.iou, strict=True)).get(name))

    def summary(self, data: str, entry: Entry, name: str = "mIoU") -> Cell:
        """A summary rate, see Report.rates."""
        return self._cell(data, entry, lambda report: report.rates().get(name))

    def _cell(self, data: str, entry: Entry, rate: Callable[[Report], float | None]) -> Cell:
        rates = {seed: rate(report) for seed, report in self.measured(data, entry).items()}
        known = {seed: float(one) for seed, one in rates.items() if one is not None and not np.isnan(one)}
        return Cell(known, len(rates))

    def classes(self, data: str) -> list[str]:
        """The classes of all reports on a data set."""
        reports = (report for key, of in self.reports.items() if key[0] == data for report in of.values())
        return list(dict.fromkeys(name for report in reports for name in report.class_names))

    def summaries(self) -> list[str]:
        """The summary rates of all reports, in the order of one with all views."""
        found = [list(report.rates()) for of in self.reports.values() for report in of.values()]
        longest = max(found, key=lambda names: len(names))
        return list(dict.fromkeys(chain(longest, *found)))

    def means(self, everything: bool = False) -> Grid:
        """A section for each data set, a row for each entry: its mIoU, and how many points it is above the first one's.

        everything: the other summary rates, too.
        """
        shown = {data: self.entries(data, everything) for data in self.domains}
        compared = any(len(entries) > 1 for entries in shown.values())
        others = [name for name in self.summaries() if name != "mIoU"] if everything else []
        sections = []
        for data, entries in shown.items():
            rates, differences = self._row([self.summary(data, entry) for entry in entries], entries)
            columns = [rates, differences] if compared else [rates]
            columns += [self._row([self.summary(data, one, name) for one in entries], entries)[0] for name in others]
            names = [self._with_count(data, entry) for entry in entries]
            lines = [Line(name, cells) for name, *cells in zip(names, *columns, strict=True)]
            sections.append(Section(self.title(data), lines))
        return Grid(["in %", "mIoU", *[DIFFERENCE] * compared, *others], sections)

    def by_class(self, data: str, everything: bool = False) -> Grid:
        """A row for each class of a data set: its share of the labelled pixels, each entry's IoU, and how many points
        that is above the first one's; of an entry that stands alone, its accuracy. Then the mIoU.

        everything: the other networks and summary rates, too.
        """
        entries = [entry for entry in self.entries(data, everything) if not entry.oracle]
        first = next(report for entry in entries for report in self.measured(data, entry).values())
        share = dict(zip(first.class_names, map(percent, first.share), strict=True))
        rows = [(name, [self.of_class(data, entry, name) for entry in entries]) for name in self.classes(data)]
        summaries = self.summaries() if everything else ["mIoU"]
        rows += [(name, [self.summary(data, entry, name) for entry in entries]) for name in summaries]
        lines = []
        for number, (name, cells) in enumerate(rows):
            (first_rate, _), *pairs = zip(*self._row(cells, entries), strict=True)
            is_class = number < len(rows) - len(summaries)
            row = [Shown(share.get(name, "") if is_class else ""), first_rate, *chain.from_iterable(pairs)]
            lines.append(Line(name, row, strong=not is_class))
        titles = [entries[0].title, *(title for entry in entries[1:] for title in (entry.title, DIFFERENCE))]
        if len(entries) == 1:
            accuracy = dict(zip(first.class_names, map(percent, first.accuracy), strict=True))
            lines = [replace(line, cells=[*line.cells, Shown(accuracy.get(line.name, ""))]) for line in lines]
            titles = ["IoU", "accuracy"]
        return Grid(["IoU in %" if len(entries) > 1 else "in %", "share", *titles], [Section(self.title(data), lines)])

    def _row(self, cells: Sequence[Cell], entries: Sequence[Entry]) -> tuple[list[Shown], list[Shown]]:
        """The rates of the entries, the best marked, and their differences from the first one's.

        An oracle's choice is never the best: nobody could have chosen so.
        """
        best = best_of([np.nan if entry.oracle else cell.mean for cell, entry in zip(cells, entries, strict=True)])
        rates = [Shown(cell.text(), mark) for cell, mark in zip(cells, best, strict=True)]
        return rates, [Shown(""), *(Shown(cell.minus(cells[0]).text(points)) for cell in cells[1:])]

    def _with_count(self, data: str, entry: Entry) -> str:
        """`ebda, n = 3`: how many runs were measured; the title alone of a run that stands for itself."""
        return f"{entry.title}, n = {len(self.measured(data, entry))}" if entry.column.seeds else entry.title

    def notes(self, everything: bool = False) -> list[str]:
        """What the marks mean, and the protocol: how the data sets' images are seen, then which networks see them."""
        networks: dict[tuple[str, str], dict[int | None, None]] = {}
        together: dict[str, list[str]] = {}
        apart = []
        for data in self.domains:
            ways: dict[str, dict[str, dict[int | None, None]]] = {}
            for entry in (one for one in self.entries(data, everything) if not one.oracle):
                for seed, report in self.measured(data, entry).items():
                    way = f"{report.protocol.images} images {report.protocol.input()}"
                    ways.setdefault(way, {}).setdefault(entry.title, {})[seed] = None
                    networks.setdefault((entry.title, report.protocol.network()), {})[seed] = None
            if len(ways) == 1:
                together.setdefault(next(iter(ways)), []).append(data)
                continue
            for way, titles in ways.items():
                apart.append(f"{data}, {'; '.join(_of(title, seeds) for title, seeds in titles.items())}: {way}")
            apart.append(f"{data}: images are seen in different ways; compare with care")
        lines = [
            *self.outdated,
            *self.marks(everything),
            *(f"{', '.join(data)}: {way}" for way, data in together.items()),
            *apart,
        ]
        lines += self.remarks(everything)
        lines += [f"{_of(title, seeds)}: {network}" for (title, network), seeds in networks.items()]
        kept = [key for key in self.snapshots if key[0] in self.domains] if everything else []
        for data, network in kept:
            whose = "" if network == "student" else f" of the {network}"
            for run, each in self.snapshots[data, network].items():
                steps = f"best of {len(each.by_step)} snapshots{whose} on {data}: step {each.best}"
                lines.append(f"{run}: {steps}; {ORACLE}")
        return lines

    def remarks(self, everything: bool = False) -> list[str]:
        """What the means do not say of the classes, see Report.remarks; once of data sets that it holds for."""
        found: dict[str, dict[str, None]] = {}
        for data in self.domains:
            for entry in (one for one in self.entries(data, everything) if not one.oracle):
                for report in self.measured(data, entry).values():
                    for remark in report.remarks():
                        found.setdefault(remark, {})[data] = None
        return [f"{', '.join(data)}: {remark}" for remark, data in found.items()]

    def marks(self, everything: bool = False) -> list[str]:
        """What stars, differences and spreads are, where there are any."""
        shown = {data: self.entries(data, everything) for data in self.domains}
        if not any(len(entries) > 1 for entries in shown.values()):
            return []
        first = self.columns[0]
        said = f"marked: the highest, all that tie, none at 0; {DIFFERENCE}: unrounded points above {first.title}"
        if any(column.seeds for column in self.columns):
            said += ", paired by seed; ±: sample standard deviation over n seeds"
        ours = {seed for seed, _ in first.by_seed()}
        unpaired = [one.title for one in self.columns if not ours & {seed for seed, _ in one.by_seed()}]
        means = f"no seed in common with {first.title}, hence the difference of the means: {', '.join(unpaired)}"
        return [said, *([means] if unpaired else [])]

    def more(self) -> list[str]:
        """What `everything` adds."""
        added = [one for data in self.domains for one in self.entries(data, True) if one not in self.entries(data)]
        summaries = [name for name in self.summaries() if name != "mIoU"]
        teacher, snapshot = any(not one.oracle for one in added), any(one.oracle for one in added)
        return ["teacher"] * teacher + summaries + ["best snapshot"] * snapshot

    def hidden(self, everything: bool = False, classes: bool = False) -> list[str]:
        """What was measured and is not shown, with the way to see it, in one line; none where all is shown."""
        said = [] if everything else [f"{', '.join(self.more())} (--all)"]
        said += [] if classes else ["IoU of each class (--classes)"]
        return [f"not shown: {', '.join(said)}"] if said else []

    def table(self, everything: bool = False, classes: bool = False) -> Group:
        """For the terminal: the means, with `classes` each class, then the notes, and of two runs what was gained."""
        grids = [self.means(everything), *(self.by_class(data, everything) for data in self.domains if classes)]
        below = [*self.notes(everything), *self.hidden(everything, classes)]
        gained = gain_lines(self)
        # Below the table, not as its caption, which would be folded to its width.
        return Group(*map(terminal, grids), Text("\n".join([*below, *([""] if gained else []), *gained])))

    def markdown(self, everything: bool = False, classes: bool = False) -> str:
        """The same in Markdown."""
        grids = [self.means(everything), *(self.by_class(data, everything) for data in self.domains if classes)]
        lines = [line for grid in grids for line in (*markdown(grid), "")]
        below = [f"- {plain(note)}" for note in [*self.notes(everything), *self.hidden(everything, classes)]]
        gained = [f"- {plain(line)}" for line in gain_lines(self)]
        return "\n".join([*lines, *below, *(["", *gained] if gained else [])]) + "\n"


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


def _of(title: str, seeds: Collection[int | None]) -> str:
    """`ebda, seeds 0, 1`; the title alone of a run that stands for itself."""
    known = [str(seed) for seed in seeds if seed is not None]
    return f"{title}, seed{'s' * (len(known) > 1)} {', '.join(known)}" if known else title


def beside(
    measured: Mapping[str, Sequence[Report]],
    recipes: Mapping[str, Recipe],
    snapshots: Mapping[str, Sequence[Snapshots]] | None = None,
    seeds: bool = False,
) -> Comparison:
    """The reports of several runs, by run name; recipes: of those runs that have one.

    seeds: runs that differ in nothing but the seed make one column.
    """
    reports: dict[Key, dict[str, Report]] = {}
    for name, report in ((name, report) for name, of in measured.items() for report in of):
        reports.setdefault((report.protocol.data, report.protocol.whose), {})[name] = report
    kept: dict[Key, dict[str, Snapshots]] = {}
    for name, each in ((name, each) for name, of in (snapshots or {}).items() for each in of):
        kept.setdefault((each.data, each.weights), {})[name] = each
    names = list(measured)
    columns = by_recipe(names, recipes) if seeds else [Column(name, (name,)) for name in names]
    domains = domains_of([data for data, _ in reports], recipes.values())
    return Comparison(tuple(columns), domains, reports, kept)


def side_by_side(
    runs: Sequence[Path], seeds: bool = False, weights: Weights | None = None, step: int | None = None
) -> Comparison:
    """The reports in run folders, of all their networks or of `weights` alone, the last or after `step`; see beside."""
    places = {Path(run).resolve(): Path(run) for run in runs}  # a run named twice is one column
    measured: dict[str, list[Report]] = {}
    snapshots: dict[str, list[Snapshots]] = {}
    old: list[str] = []
    recipes: dict[str, Recipe] = {}
    for name, place in zip(names_of(list(places.values())), places.values(), strict=True):
        if place.is_file():
            if step is not None:
                raise RunError(f"{place} is an ensemble's report and knows no --step {step}; leave one of them out")
            reports = read_list(place)
        else:
            recipes[name] = load_recipe_of(place)  # is it a run at all?
            kept = read_snapshots(place)
            reports = reports_of(place) if step is None else _reports_at(place, step, kept)
            old += outdated(place, reports) if step is None else []
            snapshots[name] = [each for each in kept if step is None and weights in (None, each.weights)]
        measured[name] = [one for one in reports if weights in (None, one.protocol.weights)]
    if not any(measured.values()):
        raise RunError(f"none of these runs has a report of a {weights}; leave --weights {weights} out")
    return replace(beside(measured, recipes, snapshots, seeds), outdated=tuple(old))
