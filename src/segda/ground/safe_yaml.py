"""YAML and JSON that others wrote, as plain values; names that others gave, as what can be shown.

Nothing in such a text is executed. A text that is damaged, or made to fill the memory or never to end, is a ValueError
of one line; the caller says in which file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.resolver import Resolver

from segda.ground.paths import regular

try:
    from yaml import cyaml
except ImportError:  # PyYAML was built without libyaml
    cyaml = None  # type: ignore[assignment]

CHARACTERS = 200_000
"""Longer YAML is refused: PyYAML's own parser reads some 50,000 characters a second."""

VALUES = 20_000
"""YAML that holds more is refused; what is written once and meant often, by an alias, counts each time."""


DEPTH = 50
"""Of YAML: values within values."""


def read_yaml(path: Path) -> Any:
    """The values in a YAML file. OSError when it cannot be read, ValueError when it is none."""
    return yaml_values(_text(path))


def yaml_values(text: str) -> Any:
    """The values in a YAML text: mappings, lists, texts, numbers, dates; ValueError for anything else."""
    return _loaded(text)[0]


Keys = tuple[str, ...]
"""The keys that lead to a value, from the top."""


@dataclass(frozen=True)
class Comment:
    """What stands beside a key, and in the lines above it, each without its #."""

    beside: str = ""
    above: tuple[str, ...] = ()


@dataclass(frozen=True)
class Commented:
    """A YAML text with its comments: those of each key, and the lines that the file begins with."""

    values: Any
    comments: dict[Keys, Comment]
    head: tuple[str, ...]


def read_commented(path: Path, ours: bool = False) -> Commented:
    """A YAML file with its comments, as far as they belong to a key in a block. Errors as of `read_yaml`.

    ours: of a file that comes with segda.
    """
    text = _text(path)
    values, node = _loaded(text, ours)
    lines = text.splitlines()
    first = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    comments = {} if node is None else dict(_comments(node, lines, first))
    return Commented(values, comments, tuple(map(_bare, lines[:first])))


def yaml_line(value: Any) -> str:
    """A value as YAML in one line."""
    # Of numbers with a point, 0.0 and -0.0 are equal and are written differently.
    return _word(value) if isinstance(value, str | int | None) else _line(value)


def _line(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=inf, allow_unicode=True)
    return text.removesuffix("...\n").strip()


_word = lru_cache(maxsize=4096, typed=True)(_line)
"""A recipe has a hundred keys, the same as the next, and PyYAML needs a tenth of a millisecond for each."""


def _text(path: Path) -> str:
    return regular(path).read_text(encoding="utf-8")


def _loaded(text: str, ours: bool = False) -> tuple[Any, yaml.Node | None]:
    """A text's values, and the node that says where each stands."""
    if len(text) > CHARACTERS:
        raise ValueError(f"not valid YAML: {len(text)} characters, more than {CHARACTERS}")
    # Every Exception: of a wrong date or number PyYAML lets through whatever Python says of it.
    try:
        node = _parsed(text, ours)
        return (None if node is None else _Limited("").construct_document(node)), node
    except Exception as error:
        raise ValueError(f"not valid YAML: {one_line(error)}") from error


@lru_cache(maxsize=256)
def _parsed(text: str, ours: bool) -> yaml.Node | None:
    """What PyYAML needs longest for. Recipes share blocks, and so a command may read one many times.

    ours: by libyaml, which is eight times as quick, and takes some texts that PyYAML refuses: a tab within a word.
    """
    return (_Quick if ours and cyaml is not None else _Limited)(text).get_single_node()


def _comments(node: yaml.Node, lines: list[str], first: int, above: Keys = ()) -> Iterator[tuple[Keys, Comment]]:
    """Of the keys in a mapping that is written as a block. first: the line after the file's head."""
    if not isinstance(node, yaml.MappingNode) or node.flow_style:
        return
    for key, value in node.value:
        keys = (*above, str(key.value))
        in_block = isinstance(value, yaml.CollectionNode) and not value.flow_style
        end = (key if in_block else value).end_mark
        rest = lines[end.line][end.column :] if end.line < len(lines) else ""
        beside = re.fullmatch(r"\s*:?(?:\s+[&!]\S+)*\s*(#.*)?", rest)
        at = key.start_mark.line
        while at > first and re.match(rf" {{{key.start_mark.column}}}#", lines[at - 1]):
            at -= 1
        found = Comment(
            _bare(beside[1]) if beside is not None and beside[1] else "",
            tuple(_bare(line.strip()) for line in lines[at : key.start_mark.line]),
        )
        if found != Comment():
            yield keys, found
        yield from _comments(value, lines, first, keys)


def _bare(comment: str) -> str:
    return comment.removeprefix("#").strip()


class _Bounded(Composer):
    """Makes nodes of what a parser finds; refuses values nested too deeply, and more than VALUES."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEPTH:
            raise ValueError("nested too deeply")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _size(node, {})
        return node


class _Quick(_Bounded, getattr(cyaml, "CParser", object), Resolver):  # type: ignore[misc]  # chosen here
    """libyaml's parser; the nodes are made in Python, where they are counted."""

    def __init__(self, text: str):
        super(Composer, self).__init__(text)  # type: ignore[call-arg]  # the parser
        Composer.__init__(self)
        Resolver.__init__(self)


class _Limited(_Bounded, yaml.SafeLoader):
    """SafeLoader that refuses a key written twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is written twice", key_node.start_mark
                )
            if isinstance(key, Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _size(node: yaml.Node, known: dict[int, int | None]) -> int:
    """Values in a node, those behind an alias each time; ValueError for too many, or for a node inside itself."""
    if id(node) in known:
        if (size := known[id(node)]) is None:
            raise ValueError("an alias stands inside what it stands for")
        return size
    known[id(node)] = None
    if isinstance(node, yaml.ScalarNode):
        node.value.encode()  # half a character, which could not be written anywhere: a UnicodeEncodeError
    parts = [] if isinstance(node, yaml.ScalarNode) else node.value
    below = (part for one in parts for part in (one if isinstance(one, tuple) else (one,)))
    size = 1 + sum(_size(part, known) for part in below)
    if size > VALUES:
        raise ValueError(f"more than {VALUES} values, those behind an alias counted each time")
    known[id(node)] = size
    return size


def read_json(path: Path) -> Any:
    """The values in a JSON file. OSError when it cannot be read, ValueError when it is none."""
    return json_values(regular(path).read_bytes())


def json_values(text: str | bytes) -> Any:
    """The values in a JSON text, NaN and Infinity among them, as Python writes them; ValueError for anything else."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def one_line(error: Exception) -> str:
    """What an error says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def first_line(error: Exception) -> str:
    """The first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
