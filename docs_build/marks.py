"""Markdown of plain words: tables, lists of definitions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def safe(text: str) -> str:
    """Words of a doc string or a help as Markdown shows them as they are; what is in backticks is code in both."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([*_<>\[\]|])", r"\\\1", part) for part in parts)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Of cells that are Markdown already."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |\n" for line in lines)


def definition(term: str, text: str, anchor: str = "") -> str:
    """A term, and what it is; `anchor` is what links to it say behind the #."""
    place = f'<span id="{anchor}"></span>' if anchor else ""
    return f"{place}{term}\n:   {text or '-'}\n\n"


def code(text: str) -> str:
    """In a monospaced face; a text that has backticks itself is not expected."""
    return f"`{text}`"


def block(language: str, text: str) -> str:
    """A block of code."""
    return f"```{language}\n{text}\n```\n\n"
