"""The reference of the command line: each command with its arguments and options, made of the application."""

from __future__ import annotations

from typing import Any

import typer

from docs_build.marks import block, code, definition, safe
from segda.cli.main import COMMANDS, app

HEAD = """# Command line

Made from the application: `segda COMMAND --help` prints the same. [Commands](../COMMANDS.md) is the introduction. Exit
codes: 0 done, 1 failed, 2 a mistake in what was asked, 130 interrupted.

"""


def page() -> str:
    """The page, in Markdown."""
    group = typer.main.get_command(app)
    context = group.make_context("segda", [], resilient_parsing=True)
    text = HEAD + "## segda\n\n" + _paragraphs(group.help) + _parameters(group, context)
    for name in COMMANDS:
        command = group.get_command(context, name)  # type: ignore[attr-defined]  # a group has it
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        usage = " ".join(["segda", name, *(piece.strip("{}") for piece in command.collect_usage_pieces(inner))])
        text += f"## segda {name} {{ #{name} }}\n\n{block('text', usage)}{_paragraphs(command.help)}"
        text += _parameters(command, inner, f"{name}.")
    return text


def _paragraphs(text: str | None) -> str:
    return "\n\n".join(safe(" ".join(one.split())) for one in (text or "").split("\n\n")) + "\n\n"


def _parameters(command: Any, context: Any, place: str = "") -> str:
    text = ""
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.name != "help":
            names, words = record
            text += definition(f"**{code(names)}**", safe(" ".join(words.split())), f"{place}{parameter.name}")
    return text
