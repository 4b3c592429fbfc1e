"""The reference of the Python API: all public names of `segda`, each by mkdocstrings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import segda
from docs_build.marks import code, definition, safe
from segda.cli.signature import options_of

HEAD = """# Python { #python-api }

All names of `import segda`. [A first program](../COMMANDS.md#python). What is not here may change without notice.

"""

GROUPS = {
    "Commands": "What the command line does, by the same names.",
    "Recipes and networks": "",
    "Data": "",
    "To write methods and networks": "The contracts, see [Adding](../ADDING.md).",
    "Tables": "",
    "Errors": "",
}


def group_of(name: str) -> str:
    """Where a public name stands on the page."""
    home = segda._HOME[name]
    if home.startswith("segda.commands."):
        return "Commands"
    if home == "segda.errors":
        return "Errors"
    if name.isupper():
        return "Tables"
    if name in ("Batch", "Head", "Method", "Network", "Output", "Scene"):
        return "To write methods and networks"
    return "Data" if ".data." in home else "Recipes and networks"


def page() -> str:
    """The page, in Markdown, for mkdocstrings to fill."""
    text = HEAD
    for title, about in GROUPS.items():
        text += f"## {title}\n\n{about}\n\n"
        for name in segda.__all__:
            if group_of(name) == title:
                text += _of(name)
    return text


def _of(name: str) -> str:
    home, thing = segda._HOME[name], getattr(segda, name)
    if isinstance(thing, dict):
        there = ", ".join(code(key) for key in thing)
        return f"### segda.{name} {{ #segda.{name} }}\n\nA mapping of names to what they name: {there}.\n\n"
    text = f"::: {home}.{name}\n    options:\n      heading: segda.{name}\n      toc_label: segda.{name}\n\n"
    return f'<span id="segda.{name}"></span>\n\n{text}' + (_arguments(thing) if group_of(name) == "Commands" else "")


def _arguments(command: Callable[..., Any]) -> str:
    """What the command line says of them; its own paragraph says the rest."""
    found = ((key, get_args(one.annotation)[1:]) for key, one in options_of(command, 0).items())
    helped = ((key, about.help) for key, words in found for about in words if getattr(about, "help", None))
    return "".join(definition(f"**{code(key)}**", safe(" ".join(text.split()))) for key, text in helped)
