"""Inputs that nobody would write: damaged files, edited trees of values, and how one is tried."""

from __future__ import annotations

import atexit
import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from segda.errors import SegdaError

REFUSED = object()


def attempt(call: Callable[..., Any], *arguments: Any, also: tuple[type[Exception], ...] = ()) -> Any:
    """What the call gives, or REFUSED after an error of ours in one line; `also`: other errors that it may raise."""
    try:
        return call(*arguments)
    except SegdaError as error:
        attempt.refused += 1
        assert str(error) and "\n" not in str(error), repr(str(error))
    except also:
        attempt.refused += 1
    return REFUSED


attempt.refused = 0
"""How many calls were."""


@cache
def place() -> Path:
    """A folder for the files that are tried."""
    folder = Path(tempfile.mkdtemp(prefix="segda-properties-"))
    atexit.register(shutil.rmtree, folder)
    return folder


def put(name: str, content: bytes | str) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return path


# What is drawn


@st.composite
def damaged(draw: st.DrawFn, files: Callable[[], dict[str, bytes]]) -> bytes:
    """One of these files with some of its bytes changed, left out, repeated or cut off; or any bytes at all."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    content = bytearray(draw(st.sampled_from(sorted(files().values()))))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        match draw(st.sampled_from(("flip", "set", "repeat", "drop", "cut", "number"))):
            case "flip" if content:
                content[at] ^= 1 << draw(st.integers(0, 7))
            case "set":
                content[at : at + 1] = draw(st.binary(min_size=1, max_size=4))
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case "drop":
                del content[at : at + draw(st.integers(1, 16))]
            case "cut":
                del content[at:]
            case "number":
                content[at : at + 4] = struct.pack(">I", draw(st.sampled_from((0, 1, 30_000, 2**31 - 1, 2**32 - 1))))
    if content.startswith(b"\x89PNG") and draw(st.booleans()):
        return checked_again(bytes(content))
    return bytes(content)


def checked_again(content: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have, so that what is wrong in them is not found by these."""
    done, at = content[:8], 8
    while at + 12 <= len(content):
        length = struct.unpack_from(">I", content, at)[0]
        part = content[at + 4 : at + 8 + length]
        done += struct.pack(">I", length) + part + struct.pack(">I", zlib.crc32(part))
        at += 12 + length
    return done + content[at:]


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 300),
    st.sampled_from((2**31, -(2**63), 2**64, 10**30)),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(
        ("", "all", "auto", "nan", "1e400", "camvid:train", "os:system", "x" * 300, "a\nb", "\x1b[2J", "[/b]")
    ),
)

TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def changed(draw: st.DrawFn, trees: Callable[[], list[Any]]) -> Any:
    """One of these trees with some of its values replaced, removed or renamed."""
    tree = json.loads(json.dumps(draw(st.sampled_from(trees()))))
    for _ in range(draw(st.integers(0, 3))):
        at: Any = {"": tree}
        key: Any = ""
        while isinstance(at[key], (dict, list)) and at[key] and draw(st.integers(0, 4)):
            at = at[key]
            key = draw(st.sampled_from(sorted(at))) if isinstance(at, dict) else draw(st.integers(0, len(at) - 1))
        how = draw(st.sampled_from(("leaf", "tree", "remove", "rename")))
        if key == "" or how in ("leaf", "tree"):
            at[key] = draw(LEAVES if how == "leaf" else TREES)
        elif how == "remove":
            del at[key]
        elif isinstance(at, dict):
            at[draw(st.text(max_size=8))] = at.pop(key)
        tree = at[""] if key == "" else tree
    return tree


def as_yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


Property = tuple[Callable[..., None], tuple[st.SearchStrategy, ...]]
"""A function of what its strategies draw."""


def named(*properties: tuple[Any, ...]) -> dict[str, Property]:
    """Properties by their names in words."""
    return {function.__name__.replace("_", " "): (function, strategies) for function, *strategies in properties}
