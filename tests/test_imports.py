"""Who imports whom in segda: files stand above one another, and no two need each other."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator
from pathlib import Path

import segda

ROOT = Path(segda.__file__).parent

NOTHING_OF: dict[str, tuple[str, ...]] = {
    "ground": ("data", "networks", "parts", "methods", "recipes", "training", "evaluation", "commands"),
    "distributed": ("data", "networks", "parts", "methods", "recipes", "training", "evaluation", "commands"),
    "data": (
        "networks", "parts", "methods", "recipes", "training", "evaluation", "pseudo_labelling", "reporting",
        "commands", "cli", "run",
    ),
    "networks": ("methods", "recipes", "training", "evaluation", "commands", "cli", "run"),
    "parts": ("methods", "recipes", "training", "evaluation", "commands", "cli", "run"),
    "methods": ("recipes", "training", "evaluation", "commands", "cli", "run"),
    "evaluation": ("training", "commands", "cli"),
    "pseudo_labelling": ("training", "commands", "cli"),
    "training": ("commands", "cli"),
}  # fmt: skip
"""A package (or module) of segda -> those that it does not import."""

ABOVE_COMMANDS = ("cli", "commands", "segda")
"""Who imports commands: the command line, they one another, and `segda` itself, whose functions they are."""

NOT_YET = {
    ("segda.distributed.sharding", "segda.networks.network"),
}
"""Imports that the rules forbid and that are still there. Take one out when it goes; none comes in."""


def modules() -> dict[str, Path]:
    """Dotted name -> file; a package's is its __init__.py."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = ("segda", *path.relative_to(ROOT).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(path: Path, types: bool) -> Iterator[str]:
    """What a file imports of segda, wherever in it; `types`: also under `if TYPE_CHECKING`."""
    tree = ast.parse(path.read_text())
    blocks = (node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    for_types = {id(node) for block in blocks for line in block.body for node in ast.walk(line)}
    for node in ast.walk(tree):
        if id(node) in for_types and not types:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the whole name"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else str(node.module) for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph(types: bool) -> dict[str, set[str]]:
    return {
        name: {other for other in imported(path, types) if other in MODULES and other != name}
        for name, path in MODULES.items()
    }


def package(module: str) -> str:
    """The part of segda that a module is in: `data` of segda.data.rows.row."""
    return module.split(".")[1] if "." in module else module


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Some modules that each import the next one, the last of them the first; none where there are none."""
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for other in sorted(edges[module]):
            if found := walk(other, (*path, module)):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := walk(module, ()))), [])


def test_no_two_files_need_each_other():
    # A name that only a type checker reads is needed by nobody when the file runs: there files may know each other.
    found = circle(graph(types=False))
    assert not found, " -> ".join(found)


def test_circles_are_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def forbidden() -> set[tuple[str, str]]:
    """The imports that the rules forbid, types too: who knows another's types is no lower than that."""
    edges = [(one, other) for one, others in graph(types=True).items() for other in others]
    downward = {(one, other) for one, other in edges if package(other) in NOTHING_OF.get(package(one), ())}
    commands = {(one, other) for one, other in edges if package(other) == "commands"}
    return downward | {(one, other) for one, other in commands if package(one) not in ABOVE_COMMANDS}


def test_packages_import_only_what_is_below_them():
    assert forbidden() - NOT_YET == set()


def test_what_is_not_yet_as_it_should_be_is_still_there():
    assert NOT_YET - forbidden() == set(), "gone: take it out of NOT_YET"


def test_the_rules_speak_of_parts_that_exist():
    assert {*NOTHING_OF, *itertools.chain(*NOTHING_OF.values())} <= {package(module) for module in MODULES}


def test_imports_are_seen_wherever_they_stand(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nimport segda.run\nfrom segda.data import rows\n"
        "if TYPE_CHECKING:\n    from segda.scene import Scene\n"
        "def late():\n    from segda.data.sets.datasets import open_data\n"
    )
    assert set(imported(path, False)) - {"typing"} == {"segda.run", "segda.data.rows", "segda.data.sets.datasets"}
    assert set(imported(path, True)) - set(imported(path, False)) == {"segda.scene"}
