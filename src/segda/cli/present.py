"""How the command line shows what the commands give: tables, lines, exit codes; and the options of showing it."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from segda.ground.speaking import echo

if TYPE_CHECKING:
    from rich.console import RenderableType

    from segda.data.sets.inspection import DataReport
    from segda.evaluation.runs import Found
    from segda.reporting.comparison import Comparison
    from segda.training.sweep import Outcome


def show(renderable: RenderableType) -> None:
    """Prints a table; into a file or a pipe as wide as it likes, so that no word is broken."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(renderable)


def alone() -> bool:
    """Whether this process shows what came out: of several, the first."""
    from segda.distributed.group import rank

    return rank() == 0


def nothing(_: object) -> None:
    """The command has said all while it was at work."""


def place(written: object) -> None:
    echo(str(written))


def recipe_text(text: str, *, to: Path | None) -> None:
    echo(text.rstrip("\n") if to is None else str(to))


class _Lines(Protocol):
    def lines(self) -> list[str]: ...


def lines(done: _Lines) -> None:
    echo("\n".join(done.lines()))


def files(written: Sequence[Path], *, out: Path) -> None:
    """How many files were written, and where; of one archive, its name."""
    if alone():
        echo(str(out) if list(written) == [out] else f"{len(written)} files in {out}")


def measured(
    found: Sequence[Found],
    *,
    runs: Sequence[Path],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    from segda.reporting.tables import names_of, snapshots_table, tables

    if not alone():
        return
    if json:
        echo(json_format.dumps([each for one in found for each in one.to_json()], indent=1))
        return
    names = dict(zip(runs, names_of(runs), strict=True))
    for one in found:
        name = f"ensemble of {len(runs)}" if one.run is None else names[one.run]
        for each in one.snapshots:
            show(snapshots_table(each, name))
        for table in tables(one.reports, "" if len(runs) == 1 else name):
            show(table)


def labelled(summary: Mapping[str, Any], *, out: Path) -> None:
    from segda.reporting.tables import pseudo_labels_table

    if alone():
        show(pseudo_labels_table(summary))
        echo(f"{summary['images']} labels in {out}")


def compared(
    comparison: Comparison,
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a terminal table.")] = False,
) -> None:
    if markdown:
        echo(comparison.markdown())
    else:
        show(comparison.table())


def swept(outcome: Outcome, *, dry_run: bool) -> int:
    if dry_run:
        print("\n".join(outcome.script))  # as it is: a shell shall read it
        return 0
    if (comparison := outcome.comparison()) is not None:
        show(comparison.table())
    for run, reason in outcome.failed.items():
        print(f"segda: {run} failed: {reason}", file=sys.stderr)
    return 1 if outcome.failed else 0


def inspected(report: DataReport) -> int:
    from segda.reporting.tables import data_table

    show(data_table(report))
    return 0 if report.usable else 1
