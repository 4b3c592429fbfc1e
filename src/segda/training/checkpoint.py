"""What a checkpoint holds, and how a training becomes again what it was.

student, teacher, discriminators, running levels     the method's state
optimisers, gradient scaler                          theirs
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
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import segda
from segda.distributed import sharding
from segda.errors import RunError, WeightsError
from segda.ground.hardware import environment
from segda.parts.given import given_in
from segda.recipes.build import starts_of
from segda.run import CHECKPOINT_FORMAT

if TYPE_CHECKING:
    from segda.methods.method import Method
    from segda.training.assembly import Training


def state_of(training: Training) -> dict[str, Any]:
    """Everything that `restore` needs. Of several processes all must ask where weights are sharded; see `whole`."""
    still = kept_out(training.method)
    state = {
        "format": CHECKPOINT_FORMAT,
        "t": training.t,
        "recipe": training.recipe.model_dump(mode="json"),
        "made_by": maker(training.device, training.precision),
        "method": {name: value for name, value in training.method.state_dict().items() if not name.startswith(still)},
        "constants": training.constants,
        "given": training.given,
        "optimisers": {name: optimiser.state_dict() for name, optimiser in training.optimisers.items()},
        "scaler": training.scaler.state_dict(),
        "means": training.means.state(),
    }
    return sharding.gather_full(state) if training.sharded else state


def restore(training: Training, state: dict[str, Any], where: Path) -> None:
    """Puts a state, read from `where`, into a training that was built anew. WeightsError where it does not fit."""
    own = training.method.state_dict()
    still = {name: value for name, value in own.items() if name.startswith(kept_out(training.method))}
    try:
        training.method.load_state_dict(sharding.place(state["method"], own) | still)
        for name, optimiser in training.optimisers.items():
            # Rates and decay are the recipe's, which may have been changed on purpose; the file's would undo that.
            settings = [{key: group[key] for key in group if key != "params"} for group in optimiser.param_groups]
            optimiser.load_state_dict(sharding.place_moments(state["optimisers"][name], optimiser))
            for group, own in zip(optimiser.param_groups, settings, strict=True):
                group.update(own)
        training.scaler.load_state_dict(state["scaler"])
        training.means.restore(state["means"], training.device)
        training.t = training.saved = int(state["t"])
        lent = [name for name, own in training.given.items() if state.get("given", {}).get(name) != own]
        other = [name for name, own in training.constants.items() if state["constants"].get(name, own) != own]
    except (KeyError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise WeightsError(f"{where} does not fit this recipe: {reason}; train anew with --overwrite") from error
    if lent:
        raise WeightsError(
            f"{where}: given.{lent[0]} ({training.recipe.given[lent[0]]}) is another network than the run began with; "
            "put that back, or train anew with --overwrite"
        )
    if other:
        start = training.recipe.start
        found = {"start": start} if start is not None else starts_of(training.recipe.network)
        starts = ", ".join(f"{key} ({value})" for key, value in found.items())
        raise WeightsError(
            f"{where}: {other[0]} is as it was when the run began, but {starts or 'the seed'} now gives other weights "
            "than then; put those back, or train anew with --overwrite"
        )
    if training.t > training.recipe.steps:
        raise RunError(f"{where} is of step {training.t}, but the recipe ends at {training.recipe.steps}; set steps")


def constants(method: Method) -> dict[str, nn.Module]:
    """The parts of a method that never change after it is built and that its settings did not leave out, by name."""
    there = dict(method.named_modules())
    return {name: there[name] for name in method.constants if name in there}


def kept_out(method: Method) -> tuple[str, ...]:
    """The beginnings of the names in a method's state that no checkpoint holds."""
    return tuple(f"{name}." for name in (*constants(method), *given_in(method)))


def digest(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers of a module, their names and shapes."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        value = value.full_tensor() if sharding.is_shard(value) else value
        found.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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
    torch.save(state_of(training), file)  # type: ignore[arg-type]  # of a file, torch wants no more than it has
    return file.size
