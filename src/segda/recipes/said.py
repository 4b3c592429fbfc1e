"""What the code says of a class's settings: the doc string below a setting's line, or its words in the class's own.

    class Rate(BaseModel):
        \"\"\"begin, end: steps. Between them it falls.\"\"\"
        power: float
        \"\"\"Of the fall.\"\"\"

says "steps." of begin and end and "Of the fall." of power; what is below a line goes before what the class says.
"""

from __future__ import annotations

import ast
import inspect
import re
import typing
from collections.abc import Collection, Iterator
from functools import cache
from importlib import import_module
from itertools import pairwise


def said(cls: type, keys: Collection[str]) -> dict[str, str]:
    """Of those of the keys of which something is said, what: a line each. A class inherits what its bases say."""
    found: dict[str, str] = {}
    homes = list(_homes(cls))
    for home in reversed(homes):
        found |= _of_text(home.__dict__.get("__doc__") or "", keys)
    for home in reversed(homes):
        found |= {key: text for key, text in _below(home).items() if key in keys}
    return {key: re.sub(r"\bNone\b", "null", text) for key, text in found.items()}  # as YAML writes it


def about(cls: type) -> str:
    """What a class is: the first line of its module, which is named after a paper or a part."""
    return (inspect.getdoc(import_module(cls.__module__)) or "").partition("\n\n")[0].replace("\n", " ")


def _homes(cls: type) -> Iterator[type]:
    """The class, what it derives from, and the dictionaries that its settings are unpacked from."""
    yield cls
    hints = typing.get_type_hints(cls.__init__) if "__init__" in cls.__dict__ else {}  # type: ignore[misc]
    for hint in hints.values():
        if typing.get_origin(hint) is typing.Unpack:
            yield from _homes(typing.get_args(hint)[0])
    # As they are written: a TypedDict forgets what it derives from.
    for base in _written(cls).bases:
        found = getattr(import_module(cls.__module__), base.id, None) if isinstance(base, ast.Name) else None
        if isinstance(found, type) and found.__module__.startswith("segda."):
            yield from _homes(found)


def _written(cls: type) -> ast.ClassDef:
    found: ast.Module | ast.ClassDef = _parsed(cls.__module__)
    for name in cls.__qualname__.split("."):
        found = next(one for one in found.body if isinstance(one, ast.ClassDef) and one.name == name)
    assert isinstance(found, ast.ClassDef)
    return found


@cache
def _parsed(module: str) -> ast.Module:
    """Once a module: `inspect.getsource` parses all of it for each class."""
    return ast.parse(inspect.getsource(import_module(module)))


def _below(cls: type) -> dict[str, str]:
    """The doc strings below the annotated lines of a class."""
    lines = _written(cls).body
    found = {}
    for line, after in pairwise(lines):
        match line, after:
            case ast.AnnAssign(target=ast.Name(id=key)), ast.Expr(value=ast.Constant(value=str(text))):
                found[key] = " ".join(text.split())
    return found


def _of_text(text: str, keys: Collection[str]) -> dict[str, str]:
    """`key: words.`, `key, other: words.`: up to the next such beginning, or the end of the paragraph."""
    if not keys:
        return {}
    one = "|".join(sorted(map(re.escape, keys), key=len, reverse=True))
    begin = rf"(?:^|(?<=[.;] ))((?:{one})(?:, (?:{one}))*): "
    found: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        # A key at the beginning of a line begins a sentence.
        plain = re.sub(rf"\n(?=(?:{one})(?:, (?:{one}))*: )", "\0", paragraph)
        for part in plain.split("\0"):
            _, *parts = re.split(begin, " ".join(part.split()))
            for those, sentence in zip(parts[::2], parts[1::2], strict=True):
                found |= dict.fromkeys(those.split(", "), sentence.strip())
    return found
