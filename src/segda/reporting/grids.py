"""A table as texts, before anybody prints it: the terminal, Markdown and report.html show the same one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from rich.text import Text

from segda.reporting.tables import percent


@dataclass(frozen=True)
class Shown:
    """The text in a cell, and whether it is the best of those that it is compared with."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row with the name before it; strong: a mean over what stands above."""

    name: str
    cells: Sequence[Shown]
    strong: bool = False


@dataclass(frozen=True)
class Section:
    """Rows with a title over them."""

    title: str
    lines: Sequence[Line]


@dataclass(frozen=True)
class Grid:
    """titles: of the columns, the first one that of the rows' names."""

    titles: Sequence[str]
    sections: Sequence[Section]


def best_of(rates: Sequence[float]) -> list[bool]:
    """Which of the rates, in [0, 1], are the highest as they are printed: all that tie.

    None of them where fewer than two are known, where all known ones are equal, or where the highest is 0.
    """
    printed = [np.nan if np.isnan(rate) else float(percent(rate)) for rate in rates]
    known = [rate for rate in printed if not np.isnan(rate)]
    if len(known) < 2 or min(known) == max(known):
        return [False] * len(rates)
    return [rate == max(known) for rate in printed]


def terminal(grid: Grid) -> Table:
    """The best bold and starred, the titles of the numbers a word a line, so that many stand beside each other."""
    table = Table()
    table.add_column(Text(grid.titles[0]), overflow="fold")
    for title in grid.titles[1:]:
        table.add_column(Text(title.replace(" ", "\n")), justify="right", overflow="fold")
    for section in grid.sections:
        table.add_section()
        table.add_row(Text(section.title, style="bold"))
        for line in section.lines:
            cells = [
                Text(f"{cell.text}{'*' if cell.best else ' '}", style="bold green" if cell.best else "")
                for cell in line.cells
            ]
            table.add_row(Text(f"  {line.name}", style="bold" if line.strong else ""), *cells)
    return table


def markdown(grid: Grid) -> list[str]:
    """The lines of a Markdown table, the best bold."""
    rest = len(grid.titles) - 1
    lines = [_line([plain(title) for title in grid.titles]), _line(["---", *["---:"] * rest])]
    for section in grid.sections:
        lines.append(_line([f"**{plain(section.title)}**", *[""] * rest]))
        for line in section.lines:
            cells = [f"**{cell.text}**" if cell.best else cell.text for cell in line.cells]
            lines.append(_line([plain(line.name), *cells]))
    return lines


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one table cell."""
    for mark in "\\`*_[]<>|":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.split())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
