"""What stands around a network's tensors in a file: a mapping beside the optimiser's, words before every name.

{"model_state": {...}, "cur_itrs": 3}      the one mapping that holds a network, however it is called
{"state_dict": ..., "state_dict_ema": ...} two: the network as it is trained, and the mean of its weights
"module._orig_mod.backbone..."             what DistributedDataParallel, torch.compile and a LightningModule add
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from segda.errors import WeightsError
from segda.ground.choices import Weights
from segda.networks.weights.open_mmlab import stated_in

USUAL = (
    "state_dict", "model_state_dict", "model_state", "model", "model_dict", "network", "net", "student", "weights",
)  # fmt: skip
"""What a file calls the network that it is about, beside other mappings of tensors."""

AVERAGED = {"ema", "teacher", "averaged", "swa"}
"""Words in the name of the mean of a network's weights."""

COMPILED = "_orig_mod."
"""What torch.compile puts before the names of what it compiled, which may stand inside something else."""

DEEPEST = 4
"""Words before the names of a network, or mappings around it, that are looked through."""

LEAST = 10
"""Tensors: no network has fewer."""

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Held:
    """The tensors of a file by the names that it gives them, and the names of what else it holds.

    which: whose names the tensors have: the student's, also where they are a teacher's that were told apart from it by
    what stood around them. stated: what the file says of the classes (open_mmlab.py).
    """

    file: Path
    tensors: Tensors
    others: list[str]
    which: Weights = "student"
    stated: Mapping[str, Any] = field(default_factory=dict)


def unwrapped(held: Any, which: Weights, file: Path) -> Held:
    """The mapping of the `which` network's tensors in what a file holds. WeightsError where there is none, or where
    nothing says which of several it is.
    """
    found = dict(_mappings(held)) if isinstance(held, Mapping) else {}
    if not found:
        raise WeightsError(f"{file}: holds no tensors by name; give a state_dict")
    averaged = [name for name in found if is_averaged(name)]
    usual = [name for name in found if name and all(part in USUAL for part in name.lower().split("."))]
    if which == "teacher" and averaged:
        if "message_hub" in held:
            raise WeightsError(
                f"{file}: OpenMMLab's EMAHook keeps the mean of the weights in state_dict, and the student's in "
                f"{averaged[0]}; leave --weights out"
            )
        names, which = averaged, "student"
    else:
        plain = [""] if "" in found else [name for name in found if name not in averaged]
        names = usual or plain or averaged
    name = _only(names, found, file)
    others = [*_beside(held, name), *(str(key) for key, value in found[name].items() if not isinstance(value, Tensor))]
    return Held(file, _plain_names(found[name], file), others, which, stated_in(held))


def _mappings(held: Mapping[Any, Any], where: str = "", depth: int = 0) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each mapping of tensors by names, with the keys that lead to it: "model.state_dict", "" for `held` itself.

    An optimiser counts its tensors, which have no names.
    """
    if depth > DEEPEST or not all(isinstance(key, str) for key in held):
        return
    if any(isinstance(value, Tensor) for value in held.values()):
        yield where, held
    for key, value in held.items():
        if isinstance(value, Mapping):
            yield from _mappings(value, f"{where}.{key}" if where else key, depth + 1)


def _only(names: list[str], found: Mapping[str, Mapping[str, Any]], file: Path) -> str:
    if len(names) == 1:
        return names[0]
    told = ", ".join(f"{name or 'the file itself'} ({len(found[name])})" for name in names)
    raise WeightsError(f"{file}: holds several mappings of tensors: {told}; save the network's alone: torch.save(...)")


def _beside(held: Mapping[str, Any], name: str) -> Iterator[str]:
    """The keys beside those that lead to a mapping."""
    for part in name.split(".") if name else ():
        yield from (str(key) for key in held if key != part)
        held = held[part]


def is_averaged(name: str) -> bool:
    """Whether a name says that it is the mean of a network's weights: `state_dict_ema`, `teacher`, `modelEMA`."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    return not AVERAGED.isdisjoint(word.lower() for word in words)


def _plain_names(tensors: Mapping[str, Any], file: Path) -> Tensors:
    """The tensors without what torch.compile puts before their names."""
    found: Tensors = {}
    for key, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue
        if (name := key.replace(COMPILED, "")) in found:
            raise WeightsError(f"{file}: {name} is there twice, with and without {COMPILED}; save one of them alone")
        found[name] = tensor
    return found


def stripped(held: Held, fits: Callable[[Tensors], bool]) -> Held:
    """The network inside longer names: of "net.", where `fits` says that what follows is one; as it is if none is.

    WeightsError where several are, and their names do not say which is meant.
    """
    found: dict[str, Tensors] = {}
    for start in _beginnings(held.tensors):
        if not start.startswith(tuple(found)):
            inside = {key.removeprefix(start): each for key, each in held.tensors.items() if key.startswith(start)}
            if fits(inside):
                found[start] = inside
    wanted = [start for start in found if is_averaged(start) == (held.which == "teacher")]
    if not wanted:
        return held
    if len(wanted) > 1:
        raise WeightsError(
            f"{held.file}: holds several networks, {' and '.join(f'{start}*' for start in wanted)}; save one of them "
            "alone: torch.save(...)"
        )
    start = wanted[0]
    beside = Counter(key.split(".")[0] for key in held.tensors if not key.startswith(start))
    others = held.others + [f"{name}.* ({count})" for name, count in beside.items()]
    return replace(held, tensors=found[start], others=others, which="student")


def _beginnings(names: Mapping[str, Any]) -> list[str]:
    """The beginnings that LEAST names have, up to a dot, the shortest first."""
    counts: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")[:-1]
        counts.update(f"{'.'.join(parts[:length])}." for length in range(1, min(DEEPEST, len(parts)) + 1))
    return sorted((start for start, count in counts.items() if count >= LEAST), key=lambda start: start.count("."))
