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

    from segda.commands.init import Begun
    from segda.data.sets.inspection import DataReport
    from segda.evaluation.runs import Found
    from segda.evaluation.selection import Selection
    from segda.online.adapt import Adapted
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


def trained(
    _: None,
    *,
    label: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Print each line as `[TEXT] ...`; log.jsonl stays as it is.")
    ] = None,
) -> None:
    """The command has said all while it was at work, each line with its label: see mark_lines in main.py."""


def place(written: object) -> None:
    echo(str(written))


def recipe_text(text: str, *, to: Path | None) -> None:
    echo(text.rstrip("\n") if to is None else str(to))


class _Lines(Protocol):
    def lines(self) -> list[str]: ...


def nothing(_: object) -> None:
    """A command that has said all while it ran."""


def lines(done: _Lines) -> None:
    echo("\n".join(done.lines()))


def files(written: Sequence[Path], *, out: Path) -> None:
    """How many files were written, and where; of one archive, its name."""
    if alone():
        echo(str(out) if list(written) == [out] else f"{len(written)} files in {out}")


Everything = Annotated[
    bool, typer.Option("--all", help="Show teachers, best snapshots and all summary rates beside the students' mIoU.")
]
Classes = Annotated[bool, typer.Option("--classes", help="Show each class.")]


def measured(
    found: Sequence[Found],
    *,
    runs: Sequence[Path],
    everything: Everything = False,
    classes: Classes = False,
    json: Annotated[bool, typer.Option("--json", help="Print all as JSON instead.")] = False,
) -> None:
    from segda.reporting.comparison import beside
    from segda.reporting.tables import names_of, snapshots_table
    from segda.run import load_recipe_of

    if not alone():
        return
    if json:
        echo(json_format.dumps([each for one in found for each in one.to_json()], indent=1))
        return
    places = [Path(run) for run in runs]
    names = dict(zip(places, names_of(places), strict=True))
    recipes = {name: load_recipe_of(run) for run, name in names.items()}
    of = {f"ensemble of {len(runs)}" if one.run is None else names[one.run]: one for one in found}
    for name, one in of.items():
        students = [each for each in one.snapshots if each.weights == "student"]
        shown = one.snapshots if everything or not students else students
        for each in shown:
            show(snapshots_table(each, name))
        if len(shown) < len(one.snapshots):
            echo("not shown: the teacher's snapshots (--all)")
    if any(one.reports for one in found):
        show(beside({name: one.reports for name, one in of.items()}, recipes).table(everything, classes))


def labelled(summary: Mapping[str, Any], *, out: Path) -> None:
    from segda.reporting.tables import pseudo_labels_table

    if alone():
        show(pseudo_labels_table(summary))
        echo(f"{summary['images']} labels in {out}")


def translated(summary: Mapping[str, Any], *, out: Path) -> None:
    if alone():
        echo(f"{summary['data']['images']} images of {summary['data']['spec']} in {out}, like the {summary['to']}")


def compared(
    comparison: Comparison,
    *,
    everything: Everything = False,
    classes: Classes = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a terminal table.")] = False,
) -> None:
    if markdown:
        echo(comparison.markdown(everything, classes))
    else:
        show(comparison.table(everything, classes))


def selected(
    selection: Selection, *, json: Annotated[bool, typer.Option("--json", help="Print all as JSON instead.")] = False
) -> None:
    from segda.reporting.choice import selection_table

    if json:
        echo(json_format.dumps(selection.to_json(), indent=1))
    else:
        show(selection_table(selection))


def adapted(
    found: Adapted, *, json: Annotated[bool, typer.Option("--json", help="Print all as JSON instead.")] = False
) -> None:
    from segda.reporting.choice import online_table

    if json:
        echo(json_format.dumps(found.to_json(), indent=1))
        return
    if found.online is not None:
        show(online_table(found))
    if found.out is not None:
        echo(f"{found.images} files in {found.out}")


def swept(outcome: Outcome, *, dry_run: bool) -> int:
    if dry_run:
        print("\n".join(outcome.script))  # as it is: a shell shall read it
        return 0
    if (comparison := outcome.comparison()) is not None:
        show(comparison.table())
    for run, reason in outcome.failed.items():
        print(f"segda: {run} failed: {reason}", file=sys.stderr)
    return 1 if outcome.failed else 0


def begun(found: Begun) -> int:
    from segda.reporting.tables import data_table

    for what, seen in found.seen.items():
        echo(f"{what:<8}{seen}")
    for report in found.reports:
        show(data_table(report))
    for line in found.assumed:
        echo(f"assumed: {line}")
    if not found.usable:
        echo(f"correct {found.files[0]}, then look again: segda check-data {found.reports[0].spec}")
        return 1
    echo(f"wrote {', '.join(map(str, found.files))}")
    for line in ("next:", *found.commands):
        echo(line if line == "next:" else f"  {line}")
    return 0


def inspected(report: DataReport) -> int:
    from segda.reporting.tables import data_table

    show(data_table(report))
    return 0 if report.usable else 1
