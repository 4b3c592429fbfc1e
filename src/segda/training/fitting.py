"""Whether what a file holds is of the kind that is needed: said in full before any of it is used.

torch takes what a file gives an optimiser as it is, and its fused kernels then write where the weights' sizes tell them
to, which for tensors of another size is somebody else's memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from segda.ground.safe_yaml import DEPTH, VALUES
from segda.networks.weights.files import is_plain


def faults(expected: Any, found: Any, name: str = "") -> Iterator[str]:
    """What in a tree is not as in the one that is expected: keys of mappings, shapes and types of tensors, types of
    other values.
    """
    if isinstance(expected, Mapping):
        if type(found) is not dict:
            yield f"{name} is {_told(found)}, not a mapping"
            return
        yield from (f"{_below(name, key)} is missing" for key in expected if key not in found)
        yield from (f"{_below(name, key)} is unknown" for key in found if key not in expected)
        for key in expected:
            if key in found:
                yield from faults(expected[key], found[key], _below(name, key))
    elif isinstance(expected, Tensor):
        if type(found) is not Tensor or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            yield f"{name} is {_told(found)}, not {_told(expected)}"
        elif not is_plain(found):
            yield f"{name} is no plain array of numbers"
    elif type(found) is not type(expected):
        yield f"{name} is {_told(found)}, not {_told(expected)}"


def _below(name: str, key: Any) -> str:
    return f"{name}.{key!s:.100}".removeprefix(".")


def _told(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return type(value).__name__


def is_plain_tree(tree: Any) -> bool:
    """Whether there are only mappings by text, lists, texts, numbers, no more of them than in a recipe."""
    left, todo = VALUES, [(tree, 0)]
    while todo and left:
        value, depth = todo.pop()
        left -= 1
        if depth > DEPTH:
            return False
        if type(value) is dict:
            if not all(type(key) is str for key in value):
                return False
            todo += ((each, depth + 1) for each in value.values())
        elif type(value) is list:
            todo += ((each, depth + 1) for each in value)
        elif value is not None and type(value) not in (str, int, float, bool):
            return False
    return not todo
