"""What a checkpoint holds, and how a training becomes again what it was.

student, teacher, discriminators, running levels,
a pool of painted images                             the method's state
optimisers, gradient scaler                          theirs, an optimiser's by the names of the weights
means                                                the log line that is not complete yet
constants                                            a hash of each constant's weights
given                                                a hash of each network that the recipe's `given` names
recipe, made_by                                      what it is a state of, and the code and machine that computed it

No random state: what a step draws is a function of seed and step (data/stream/stream.py, distributed/shares.py,
`Training.step`). No constant either: it is as the run began, which the recipe's seed, `network.weights` or `start` give
again; the hash tells whether they did. A frozen copy of the student in every file would say nothing new. A training
without constants goes on without what it started from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import segda
from segda.distributed import sharding
from segda.errors import RunError, WeightsError
from segda.ground.hardware import environment
from segda.networks.weights import files
from segda.parts.given import given_in
from segda.parts.image_pool import make_room
from segda.recipes.build import starts_of
from segda.run import CHECKPOINT_FORMAT, instead_of_last, write_checkpoint
from segda.training.fitting import faults, is_plain_tree
from segda.training.optim import STEP, known_of, weights_of

if TYPE_CHECKING:
    from segda.methods.method import Method
    from segda.training.assembly import Training


def state_of(training: Training) -> dict[str, Any]:
    """Everything that `restore` needs. Of several processes all must ask where weights are sharded; see `whole`."""
    names = names_of(training.method)
    state = {
        "format": CHECKPOINT_FORMAT,
        "t": training.t,
        "recipe": training.recipe.model_dump(mode="json"),
        "made_by": maker(training.device, training.precision),
        "method": learnt(training.method),
        "constants": training.constants,
        "given": training.given,
        # Their settings are the recipe's. Of a weight that never had a gradient they know nothing.
        "optimisers": {
            player: {names[weight]: dict(optimiser.state.get(weight, {})) for weight in weights_of(optimiser)}
            for player, optimiser in training.optimisers.items()
        },
        "scaler": training.scaler.state_dict(),
        "means": training.means.state(),
    }
    return sharding.gather_full(state) if training.sharded else state


def names_of(method: Method) -> dict[Tensor, str]:
    """The names of weights, as in a method's state."""
    return {value: name for name, value in method.state_dict(keep_vars=True).items()}


def learnt(method: Method) -> dict[str, Tensor]:
    """A method's state as far as a checkpoint holds it."""
    still = kept_out(method)
    return {name: value for name, value in method.state_dict().items() if not name.startswith(still)}


def check_form(state: Mapping[str, Any], where: Path) -> None:
    """WeightsError unless a state, read from `where`, has all that is asked of it before its training is built."""
    parts = dict.fromkeys(("recipe", "made_by", "method", "constants", "given", "optimisers", "scaler", "means"), dict)
    kinds = {"format": int, "t": int, **parts}
    odd = [f"{name} is missing" for name in kinds if name not in state]
    odd += [f"{name!s:.100} is unknown" for name in state if name not in kinds]
    odd += [
        f"{name} is no {kinds[name].__name__}"
        for name in kinds
        if name in state and type(state[name]) is not kinds[name]
    ]
    if not odd:
        made_by = maker(torch.device("cpu"), torch.float32)
        odd += [f"{name} is no plain values" for name in ("recipe", "made_by") if not is_plain_tree(state[name])]
        odd += faults(made_by, state["made_by"], "made_by")
        odd += ["t is negative"] if state["t"] < 0 else []
    _refuse(odd, where)


def _refuse(odd: list[str], where: Path) -> None:
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        raise WeightsError(f"{where} does not fit this recipe: {odd[0]}{more}; train anew with --overwrite")


def restore(training: Training, state: dict[str, Any], where: Path) -> None:
    """Puts a state, read from `where`, into a training that was built anew. WeightsError where it does not fit: then
    nothing is changed.
    """
    make_room(training.method, state["method"])
    _refuse(list(_misfits(training, state)), where)
    if name := not_finite(state["method"]):
        raise WeightsError(f"{where}: {name} is not finite; {instead_of_last(where.parent)}")
    lent = [name for name, own in training.given.items() if state["given"][name] != own]
    if lent:
        raise WeightsError(
            f"{where}: given.{lent[0]} ({training.recipe.given[lent[0]]}) is another network than the run began with; "
            "put that back, or train anew with --overwrite"
        )
    other = [name for name, own in training.constants.items() if state["constants"][name] != own]
    if other:
        start = training.recipe.start
        found = {"start": start} if start is not None else starts_of(training.recipe.network)
        starts = ", ".join(f"{key} ({value})" for key, value in found.items())
        raise WeightsError(
            f"{where}: {other[0]} is as it was when the run began, but {starts or 'the seed'} now gives other weights "
            "than then; put those back, or train anew with --overwrite"
        )
    if state["t"] > training.recipe.steps:
        raise RunError(f"{where} is of step {state['t']}, but the recipe ends at {training.recipe.steps}; set steps")
    own = training.method.state_dict()
    training.method.load_state_dict(own | sharding.place(state["method"], own))
    names = names_of(training.method)
    for player, optimiser in training.optimisers.items():
        known = state["optimisers"][player]
        _restore_moments(optimiser, [known[names[weight]] for weight in weights_of(optimiser)])
    training.scaler.load_state_dict(state["scaler"])
    training.means.restore(state["means"], training.device)
    training.t = training.saved = state["t"]


def _restore_moments(optimiser: Optimizer, known: Sequence[Mapping[str, Tensor]]) -> None:
    """What an optimiser knows of each of its weights, in their order; its settings stay, which may have been changed on
    purpose.
    """
    moments = {
        number: {key: value if key == STEP else sharding.beside(value, weight) for key, value in of_one.items()}
        for number, (weight, of_one) in enumerate(zip(weights_of(optimiser), known, strict=True))
        if of_one
    }
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})


def _misfits(training: Training, state: Mapping[str, Any]) -> Iterator[str]:
    """What in a state of the right form is not as in this training: keys, shapes, types."""
    yield from faults(learnt(training.method), state["method"], "method")
    yield from faults(training.constants, state["constants"], "constants")
    yield from faults(training.given, state["given"], "given")
    names = names_of(training.method)
    optimisers = {
        player: {names[weight]: known_of(optimiser, weight) for weight in weights_of(optimiser)}
        for player, optimiser in training.optimisers.items()
    }
    for player, known in optimisers.items():
        there = state["optimisers"].get(player)
        # A weight that never had a gradient.
        known.update({name: {} for name in known if type(there) is dict and there.get(name) == {}})
    yield from faults(optimisers, state["optimisers"], "optimisers")
    scaler = training.scaler.state_dict()
    yield from (odd := list(faults(scaler, state["scaler"], "scaler")))
    if not odd and not all(
        0 <= value < inf and (value > 0 or name == "_growth_tracker") for name, value in state["scaler"].items()
    ):
        yield "scaler has a number that is none of a scale"
    yield from training.means.misfits(state["means"])


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The first tensor that holds what is no number."""
    return next((name for name, value in tensors.items() if not value.isfinite().all()), None)


def constants(method: Method) -> dict[str, nn.Module]:
    """The parts of a method that never change after it is built and that its settings did not leave out, by name."""
    there = dict(method.named_modules())
    return {name: there[name] for name in method.constants if name in there}


def kept_out(method: Method) -> tuple[str, ...]:
    """The beginnings of the names in a method's state that no checkpoint holds."""
    return tuple(f"{name}." for name in (*constants(method), *given_in(method)))


def digest(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers of a module, their names and shapes."""
    state = sorted(module.state_dict().items())
    return files.digest((name, value.full_tensor() if sharding.is_shard(value) else value) for name, value in state)


def maker(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """The code and the machine that computed a state, as far as its last bits depend on them."""
    facts: Mapping[str, Any] = environment(device, precision)
    packages = facts["packages"]
    return {
        "segda": f"{packages['segda']} ({_source()})",
        "torch": packages["torch"],
        **{key: facts[key] for key in ("processor", "device", "precision", "threads", "processes")},
    }


@cache
def _source() -> str:
    """The first digits of a hash of segda's own source, which changes more often than its version."""
    found = hashlib.sha256()
    folder = Path(segda.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        found.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return found.hexdigest()[:8]


class _Counted:
    """A file that keeps nothing but its size."""

    def __init__(self) -> None:
        self.size = 0

    def write(self, content: bytes) -> int:
        self.size += len(content)
        return len(content)

    def flush(self) -> None:
        """Nothing waits to be written."""


def size(training: Training) -> int:
    """Bytes of the file that a checkpoint of this training would be."""
    file = _Counted()
    write_checkpoint(file, state_of(training), Path())  # type: ignore[arg-type]  # all that is asked of a file it has
    return file.size
