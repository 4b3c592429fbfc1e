"""A command line made of signatures: what a parameter becomes, and what a function is called with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from segda.cli.signature import command_of

Colour = Literal["red", "green"]


def paint(
    place: Annotated[Path | str, typer.Argument(metavar="PLACE", help="Where.")],
    others: Annotated[Sequence[Path], typer.Argument(help="And where else.")] = (),
    colour: Annotated[Colour, typer.Option(help="In which colour.")] = "red",
    layers: Annotated[Sequence[Colour], typer.Option(help="Over which.")] = ("green", "green"),
    thick: Annotated[float | None, typer.Option(help="How thick.")] = None,
    settings: Annotated[Sequence[str], typer.Option("--set", help="Anything.")] = (),
    dry: Annotated[bool, typer.Option("--dry", help="Only say it.")] = False,
    brush: object = "of Python alone",
) -> dict[str, Any]:
    """Paint a place.

    And what there is to know about it.
    """
    return dict(locals())


def run(words: str, present=None) -> tuple[dict[str, Any], int, str]:
    """What `paint` is called with, the exit code, and what is printed."""
    seen: dict[str, Any] = {}

    def keep(
        painted: dict[str, Any], *, loud: Annotated[bool, typer.Option("--loud", help="Say more.")] = False
    ) -> int:
        seen.update(painted, loud=loud)
        return 3 if loud else 0

    app = typer.Typer(rich_markup_mode=None)

    def code(**given: Any) -> None:
        raise typer.Exit(made(**given))

    made = command_of(paint, present or keep)
    code.__signature__, code.__doc__ = made.__signature__, made.__doc__  # type: ignore[attr-defined]
    code.__annotations__ = made.__annotations__
    app.command()(code)
    done = CliRunner().invoke(app, words.split())
    return seen, done.exit_code, done.output


def test_what_is_left_out_is_the_functions_own_default():
    seen, code, _ = run("here")
    assert seen == paint(Path("here")) | {"loud": False} and code == 0


def test_each_kind_of_parameter_is_read():
    words = "here there away --colour green --layers red --layers green --thick 0.5 --set a=1 --set b=2 --dry --loud"
    seen, code, _ = run(words)
    assert seen == {
        "place": Path("here"), "others": [Path("there"), Path("away")], "colour": "green", "layers": ["red", "green"],
        "thick": 0.5, "settings": ["a=1", "b=2"], "dry": True, "brush": "of Python alone", "loud": True,
    }  # fmt: skip
    assert code == 3


@pytest.mark.parametrize(
    "words", ["", "here --colour blue", "here --layers blue", "here --thick much", "here --brush x"]
)
def test_what_cannot_be_is_refused(words):
    seen, code, _ = run(words)
    assert seen == {} and code == 2


def test_the_help_is_the_doc_string_and_each_options_own():
    _, _, text = run("--help")
    for part in (
        "Paint a place.",
        "what there is to know",
        "PLACE",
        "In which colour.",
        "[red|green]",
        "--loud",
        "--dry",
    ):
        assert part in text, text
    assert "--no-dry" not in text and "brush" not in text


def test_two_options_of_one_name_are_a_mistake_of_ours():
    def present(painted: object, *, dry: Annotated[bool, typer.Option(help="Again.")] = False) -> None: ...

    with pytest.raises(AssertionError, match="an option of one name"):
        command_of(paint, present)
