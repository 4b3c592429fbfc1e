"""Blocks: the parts of which recipes are made, put together with the source of each number.

    use: [benchmarks/camvid, networks/mit_b0_daformer, methods/ebda]  # by their names; or the path of a file
    method.decay: 0.99                                                 # what differs, nested or with dots
    steps: 500

One level: a block uses no block; its stages may. Later wins: mappings are merged key by key, anything else replaces
what was there. A mapping whose `name` is another than before replaces the whole too, since the settings of another
class mean nothing to it (method, network, optim). On the command line and in Python `+` stands between the blocks of a
mix: methods/ebda+networks/mit_b0_daformer+mine.yaml. A file without `use` is a recipe as it stands.
A `folder:data.yaml:train` in it is looked for from the current folder on, then beside the file.

A comment belongs to the key beside which, or above which, it stands, and goes where the value goes. `flat` writes a
recipe of values and comments down again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from segda.data.sets.specs import placed
from segda.errors import RecipeError, nearest
from segda.ground.paths import OWN_DATA, OWN_RECIPE
from segda.ground.safe_yaml import Comment, Commented, Keys, read_commented, yaml_line

KINDS = ("benchmarks", "methods", "networks")
"""Folders of blocks: data and evaluation; a method's numbers; a network, its start and its optimiser."""

BLOCK = "no block; a block is a mapping of a recipe's keys"
"""What a file is that holds something else."""

COLUMN = 34
"""Where comments begin, if what they stand beside is no longer."""

FOLDER = Path(str(files("segda.recipes")))


@dataclass(frozen=True)
class Composed:
    """Values and their comments, in one file or put together from several."""

    values: dict[str, Any]
    comments: dict[Keys, Comment] = field(default_factory=dict)
    head: tuple[str, ...] = ()
    """Lines of comment above all."""

    def merged(self, over: Composed) -> Composed:
        """With what `over` says in place of what this says of the same. The heads one below the other."""
        values = merged(self.values, over.values)
        kept = {keys: comment for keys, comment in self.comments.items() if has(values, keys)}
        blocks = {keys for keys in kept if _is_block(self.values, keys) and _is_block(over.values, keys)}
        own = {keys: comment for keys, comment in kept.items() if keys in blocks or not has(over.values, keys)}
        comments = own | over.comments
        return Composed(values, comments, (*self.head, *over.head))

    def below(self, keys: Keys) -> Composed:
        """The mapping that these keys lead to."""
        values = self.values
        for key in keys:
            values = values[key]
        count = len(keys)
        return Composed(values, {at[count:]: one for at, one in self.comments.items() if at[:count] == keys != at})

    def put(self, keys: Keys, part: Composed) -> Composed:
        """With another mapping where these keys lead to, its head below the own."""
        count = len(keys)
        others = {at: one for at, one in self.comments.items() if at[:count] != keys or at == keys}
        values = replaced(self.values, keys, part.values)
        comments = others | {(*keys, *at): one for at, one in part.comments.items()}
        return Composed(values, comments, (*self.head, *part.head))


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `base`, those of `over` in their place; see above."""
    found = dict(base)
    for key, value in over.items():
        before = found.get(key)
        if isinstance(before, Mapping) and isinstance(value, Mapping) and not _renamed(before, value):
            found[key] = merged(before, value)
        else:
            found[key] = value
    return found


def _renamed(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    return "name" in before and "name" in after and before["name"] != after["name"]


def has(tree: Any, keys: Sequence[str]) -> bool:
    """Whether these keys lead to a value."""
    for key in keys:
        if not isinstance(tree, Mapping) or key not in tree:
            return False
        tree = tree[key]
    return True


def _is_block(tree: Any, keys: Sequence[str]) -> bool:
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return isinstance(tree, Mapping)


def replaced(tree: Mapping[str, Any], keys: Keys, value: Any) -> dict[str, Any]:
    """The tree with `value` where these keys lead to; mappings on the way are made where there are none."""
    first, *rest = keys
    inner = tree.get(first)
    below = replaced(inner if isinstance(inner, Mapping) else {}, tuple(rest), value) if rest else value
    return {**tree, first: below}


def shipped() -> dict[str, Path]:
    """The recipes that come with segda, by name."""
    return dict(_files(""))


def shipped_blocks(kind: str | None = None) -> dict[str, Path]:
    """The blocks that come with segda, by name: methods/ebda; of one kind, or all."""
    kinds = KINDS if kind is None else (kind,)
    return {f"{one}/{name}": path for one in kinds for name, path in _files(one).items()}


@cache
def _files(folder: str) -> dict[str, Path]:
    """Those that come with segda, which stay as they are while it runs."""
    return {path.stem: path for path in sorted((FOLDER / folder).glob("*.yaml"))}


def is_mix(name: str) -> bool:
    """Whether a name is one of blocks, and not of a recipe or its file."""
    return not Path(name).is_file() and ("+" in name or name.partition("/")[0] in KINDS)


def short_name(name: str, data: Path | str | None = None) -> str:
    """Of a recipe or a mix, for a folder: methods/ebda+networks/mit_b0_daformer -> ebda-mit_b0_daformer."""
    parts = [*(name.split("+") if is_mix(name) else [name]), *([] if data is None else [str(data)])]
    return "-".join(Path(part).stem for part in parts)


def compose(name: str | Path, data: Path | str | None = None) -> tuple[Composed, str]:
    """What a recipe or a mix of blocks says, and how messages call it.

    name: a shipped recipe's or the path of one, blocks with + between them, or a folder that `segda init` wrote. data:
    a file of the user's that says what neither method nor network can: data, evaluate, steps, seed. RecipeError where
    one cannot be found or read.
    """
    name = str(name)
    if is_mix(name):
        where = name if data is None else f"{name}+{data}"
        parts = [_block(part, where, Path()) for part in (*name.split("+"), *([] if data is None else [str(data)]))]
        return _with_stages(_together(parts), where, Path()), where
    known = shipped()
    path = known.get(name, Path(name))
    if name not in known and path.is_dir():
        path = _begun(path)
    if name not in known and path.suffix not in (".yaml", ".yml"):
        raise RecipeError(
            f"unknown recipe {name!r}{nearest(name, [*known, *shipped_blocks()])} (or give the path of a .yaml file)"
        )
    where = path.name if name in known else str(path)
    found = _read(
        path,
        absent=f"no recipe at {path}; `segda list recipes` names the shipped ones",
        kind=f"no recipe; a recipe is a mapping such as {known['ebda_streets']}",
    )
    if data is not None:
        own = [part for part in _used(found, where) if not part.startswith("benchmarks/")]
        instead = "+".join(own) if own else "methods/ebda+networks/mit_b0_daformer"
        raise RecipeError(
            f"--data: recipe {name} has data of its own, and numbers made for them; mix blocks instead: {instead} "
            f"--data {data}"
        )
    return _with_stages(_with_blocks(found, where, path.parent), where, path.parent), where


def _begun(folder: Path) -> Path:
    """The recipe in a folder that `segda init` wrote. A run folder has one too, and is none of these."""
    if not all((folder / file).is_file() for file in (OWN_RECIPE, OWN_DATA)):
        raise RecipeError(
            f"{folder}: a folder without {OWN_RECIPE} and {OWN_DATA}; `segda init {folder} ...` writes them from your "
            "images, or name a recipe"
        )
    return folder / OWN_RECIPE


def _with_stages(found: Composed, where: str, folder: Path) -> Composed:
    """With the blocks that each of its stages uses below it."""
    stages = found.values.get("stages")
    for name, stage in stages.items() if isinstance(stages, Mapping) else ():
        if isinstance(stage, Mapping) and isinstance(stage.get("train"), Mapping):
            keys, at = ("stages", str(name), "train"), f"{where}: stages.{name}.train"
            found = found.put(keys, _with_blocks(_dotted(found.below(keys), at), at, folder))
    return found


def _with_blocks(found: Composed, where: str, folder: Path) -> Composed:
    """With the blocks that it uses below it."""
    parts = [_block(part, where, folder) for part in _used(found, where)]
    own = Composed({key: value for key, value in found.values.items() if key != "use"}, found.comments)
    together = _together([*parts, own])
    return Composed(together.values, together.comments, (*found.head, *together.head))


def _used(found: Composed, where: str) -> list[str]:
    used = found.values.get("use", [])
    if not isinstance(used, list) or not all(isinstance(part, str) for part in used):
        raise RecipeError(f"{where}: use: needs a list of blocks, for example [methods/ebda] (got {used!r:.80})")
    return used


def _together(parts: Sequence[Composed]) -> Composed:
    found = Composed({})
    for part in parts:
        found = found.merged(part)
    return found


def _block(name: str, where: str, folder: Path) -> Composed:
    """A block by its name, or by the path of its file from `folder`."""
    known = shipped_blocks()
    path = known.get(name, folder / name)
    if name not in known and path.suffix not in (".yaml", ".yml"):
        if name in shipped():
            raise RecipeError(f"{where}: {name} is a recipe, no block; `segda list methods` names blocks")
        raise RecipeError(f"{where}: unknown block {name!r}{nearest(name, known)} (or give the path of a .yaml file)")
    block = (_ours if name in known else _read)(path, f"no block at {path}", BLOCK)
    if "use" in block.values:
        raise RecipeError(f"{where}: {name}: use: a block uses no block; name them all side by side")
    head = (f"{name}: {block.head[0]}", *block.head[1:]) if block.head else ()
    return Composed(block.values, block.comments, head)


def _read(path: Path, absent: str, kind: str) -> Composed:
    """The mapping that a file holds, dotted keys written out. Errors as of `read_mapping`."""
    found = read_mapping(path, absent, kind)
    written = _dotted(Composed(found.values, found.comments, found.head), str(path))
    return Composed(_placed(written.values, path.parent), written.comments, written.head)


@cache
def _ours(path: Path, absent: str, kind: str) -> Composed:
    """A file that comes with segda, read once: many recipes use it."""
    return _read(path, absent, kind)


def _placed(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """With images of one's own looked for beside the file too, see `placed`."""
    data, evaluate = values.get("data"), values.get("evaluate")
    for domain, block in data.items() if isinstance(data, Mapping) else ():
        if isinstance(block, Mapping) and isinstance(block.get("set"), str):
            values = replaced(values, ("data", domain, "set"), placed(block["set"], folder))
    if isinstance(evaluate, Mapping) and isinstance(evaluate.get("data"), list):
        scored = [placed(spec, folder) if isinstance(spec, str) else spec for spec in evaluate["data"]]
        values = replaced(values, ("evaluate", "data"), scored)
    return values


def read_mapping(path: Path, absent: str, kind: str) -> Commented:
    """The mapping that a YAML file holds, with its comments. RecipeError, saying `absent` where there is no file,
    `kind` where it holds something else.
    """
    try:
        found = read_commented(path, ours=FOLDER in path.parents)
    except FileNotFoundError:
        raise RecipeError(absent) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as text ({error}); give a YAML file") from error
    except ValueError as error:
        raise RecipeError(f"{path}: {error}; correct the file") from error
    if not isinstance(found.values, dict):
        raise RecipeError(f"{path}: holds {kind}")
    return found


def _dotted(found: Composed, where: str) -> Composed:
    """With {method: {decay: 0.9}} for {method.decay: 0.9}."""
    values: dict[str, Any] = {}
    for key, value in found.values.items():
        keys = tuple(key.split(".")) if isinstance(key, str) else (key,)
        if has(values, keys) and not (isinstance(value, Mapping) and _is_block(values, keys)):
            raise RecipeError(f"{where}: {key}: is written twice; remove one")
        values = merged(values, replaced({}, keys, value))
    comments = {(*keys[0].split("."), *keys[1:]): comment for keys, comment in found.comments.items()}
    return Composed(values, comments, found.head)


def flat(found: Composed) -> str:
    """As YAML, each comment beside or above its key; such a file is itself a recipe."""
    lines = [f"# {line}".rstrip() for line in found.head]
    before: Any = None
    for key, value in found.values.items():
        if isinstance(value, Mapping) or isinstance(before, Mapping):
            lines.append("")
        lines += _lines(key, value, (str(key),), found.comments)
        before = value
    return "\n".join(lines).lstrip("\n") + "\n"


def beside(text: str, comment: str | None) -> str:
    """A line of YAML with its comment."""
    return f"{text:<{COLUMN - 2}}  # {comment}" if comment else text


def _lines(key: Any, value: Any, keys: Keys, comments: Mapping[Keys, Comment]) -> list[str]:
    indent = "  " * (len(keys) - 1)
    comment = comments.get(keys, Comment())
    inside = isinstance(value, Mapping) and len(value) > 0
    text = f"{indent}{yaml_line(key)}:" if inside else f"{indent}{yaml_line(key)}: {yaml_line(value)}"
    lines = [*(f"{indent}# {line}".rstrip() for line in comment.above), beside(text, comment.beside)]
    for inner, below in value.items() if inside else ():
        lines += _lines(inner, below, (*keys, str(inner)), comments)
    return lines
