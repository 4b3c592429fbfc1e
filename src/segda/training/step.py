"""One step of a training from a method's generator: in one micro-batch or several, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from segda.data.stream.loading import refuse_sizes
from segda.distributed import group, sharding, sync
from segda.distributed.shares import Turn, Turns
from segda.errors import RunFailure, kept
from segda.ground.hardware import autocast
from segda.ground.ignore import IGNORE
from segda.methods.method import Method, Update
from segda.networks.dropout import number_scenes
from segda.scene import Batch, Scene
from segda.training.optim import weights_of


def train_step(
    method: Method,
    batches: Sequence[Batch],
    t: int,
    optimisers: Mapping[str, Optimizer],
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
    seed: Callable[[], None] = lambda: None,
    saved: int | None = None,
) -> dict[str, Tensor]:
    """The gradient of all terms over all scenes of the step, then every player's optimiser step; one before, where the
    method asks for an `Update`.

    batches: this process's, the micro-batches of the step. seed: puts torch's random state where each of them begins.
    saved: the step after which the run was last saved, for the message where it cannot go on.
    Returns the means of all terms over micro-batches and processes, detached.

    RunFailure, before any weight changes by it, when a term is not finite: with the step, the term, the batch's files.
    """
    for optimiser in optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    count, first_scene = len(batches), number_scenes(method)
    assert all(batch.share.count == group.world() * count for batch in batches), "a batch has another step's share"
    updates = Updates(method, batches, t, optimisers, scaler, saved)

    def enter(number: int) -> None:
        first_scene(batches[number].share.first_scene)

    def one(turn: Turn) -> dict[str, Tensor]:
        batch = batches[turn.number]
        batch = batch.replace(share=batch.share.taking(turn))
        return backward(method, batch, t, scaler, precision, count, partial(updates.meet, turn))

    try:
        if count == 1:
            enter(0)
            seed()
            logs = [backward(method, batches[0], t, scaler, precision, 1, lambda player, log: updates([log], player))]
        else:
            logs = Turns[dict[str, Tensor]](count, seed, enter).run(one)
    finally:
        first_scene(0)
    log = updates(logs)
    scaler.update()
    return log


Reached = Callable[[str, dict[str, Tensor]], object]
"""What is called where a method asks for a player's update, with the terms so far."""


def backward(
    method: Method,
    batch: Batch,
    t: int,
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
    count: int,
    reached: Reached,
) -> dict[str, Tensor]:
    """One micro-batch of `count`: pulls each dict of terms under autocast, adds up those with a gradient, goes backward
    outside autocast.

    Returns all terms, detached. The gradient is that of the mean over the micro-batches.
    """
    log: dict[str, Tensor] = {}
    events = method.step(batch, t)
    while True:
        with autocast(batch.target.image.device, precision):
            event = next(events, None)
        if event is None:
            return log
        if not torch.is_grad_enabled():
            raise AssertionError(
                f"{type(method).__name__} yielded inside torch.no_grad(): close the block before the yield"
            )
        if isinstance(event, Update):
            reached(event.player, log)
            continue
        log |= {name: term.detach() for name, term in event.items()}
        loss = torch.stack([term for term in event.values() if term.requires_grad]).sum()
        scaler.scale(loss / count).backward()
        del event, loss  # with them goes the graph, before the next forward pass


class Updates:
    """The optimiser steps within one step of a method: a player's where all micro-batches ask for it, and at the end
    those of all that have a gradient.
    """

    def __init__(
        self,
        method: Method,
        batches: Sequence[Batch],
        t: int,
        optimisers: Mapping[str, Optimizer],
        scaler: torch.amp.GradScaler,
        saved: int | None = None,
    ):
        self.method, self.batches, self.t, self.optimisers, self.scaler = method, batches, t, optimisers, scaler
        self.saved = saved
        self.logs: dict[int, dict[str, Tensor]] = {}
        self.made: list[Again] = []

    def __call__(self, logs: Sequence[dict[str, Tensor]], player: str | None = None) -> dict[str, Tensor]:
        """The update of a player, or of all. logs: the terms so far, of each micro-batch; returns their means."""
        if player is not None:
            self.refuse(player)
        due = {
            name: optimiser
            for name, optimiser in self.optimisers.items()
            if player in (None, name) and any(weight.grad is not None for weight in weights_of(optimiser))
        }
        own = logs[0]
        if len(logs) > 1:
            own = {name: torch.stack([each[name] for each in logs]).mean(0) for name in own}
        log = own
        if group.world() > 1:
            log = {name: term.clone() for name, term in own.items()}
            group.average(list(log.values()))
            sync.average_gradients(due)
            if player is None:
                sync.average_statistics(self.method)
        if not finite(log):
            # In the mean over processes what is not finite in one is so in all: nobody goes on alone.
            group.all_succeed(lambda: refuse_infinite(own, self.batches, self.t, self.saved))
        for optimiser in due.values():
            self.made.append(Again(optimiser))
            self.scaler.step(cast(Optimizer, self.made[-1]))
        if player is not None:
            self.optimisers[player].zero_grad(set_to_none=True)
            if any(map(sharding.is_shard, weights_of(self.optimisers[player]))):
                sharding.rest(self.method)  # what is gathered is as it was before
        return log

    def meet(self, turn: Turn, player: str, log: dict[str, Tensor]) -> None:
        """Called by a micro-batch: the update of a player, made once, when all have asked for it."""
        self.refuse(player)
        self.logs[turn.number] = log
        players = list(self.optimisers)

        def update(numbers: list[Tensor]) -> Tensor:
            assert len(set(map(int, numbers))) == 1, "micro-batches of a step ask for different updates"
            self([self.logs[number] for number in range(len(self.batches))], player)
            return numbers[0]

        turn.meet(torch.tensor(players.index(player)), update)

    def refuse(self, player: str) -> None:
        """AssertionError for an update that a method cannot mean."""
        what = f"{type(self.method).__name__} yielded Update({player!r})"
        assert player in self.optimisers, f"{what}; its players are {', '.join(self.optimisers)}"
        weights = weights_of(self.optimisers[player])
        # Another micro-batch would begin with what is frozen here.
        assert all(weight.requires_grad for weight in weights), f"{what} inside frozen(): close the block before"
        assert any(weight.grad is not None for weight in weights), f"{what}, but no term has given it a gradient"


class Again:
    """An optimiser, once more: a scaler lets each step once until its scale moves. That is at the end of a method's
    step, since gradients of other players have the scale that they were made with.
    """

    def __init__(self, optimiser: Optimizer):
        object.__setattr__(self, "optimiser", optimiser)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.optimiser, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.optimiser, name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self.optimiser, name)


def counted(batches: Sequence[Batch]) -> list[Batch]:
    """The batches of a step, still on the host, with the numbers of labelled pixels that all shares of it have.

    So no share must wait for the others between its forward and its backward pass, see distributed/shares.py. DataError
    where the scenes of a step differ in size.
    """
    if group.world() * len(batches) == 1:
        return list(batches)
    # All shares have the same domains. A reference has no label, and the size of its image.
    domains = [domain for domain in batches[0].scenes if domain != "reference"]
    own = [
        [[_labelled(scene), *scene.image.shape[-2:]] for scene in (each.scenes[domain] for domain in domains)]
        for each in batches
    ]
    every = group.gathered(torch.tensor(own, dtype=torch.float64))  # (shares, domains, 3)
    if (every[..., 1:] != every[0, :, 1:]).any():
        group.all_succeed(lambda: _refuse_sizes(domains, every[..., 1:].int().tolist()))
    labelled = dict(zip(domains, every[..., 0].mean(0).tolist(), strict=True))
    return [
        each.replace(**{domain: each.scenes[domain].replace(labelled=count) for domain, count in labelled.items()})
        for each in batches
    ]


def _refuse_sizes(domains: Sequence[str], sizes: Sequence[Sequence[Sequence[int]]]) -> None:
    """Shares of a step count alike, so they must be alike: each one's (height, width) of each domain."""
    for number, domain in enumerate(domains):
        refuse_sizes(domain, (each[number] for each in sizes), "step")


def _labelled(scene: Scene) -> int:
    return 0 if scene.label is None else int((scene.label != IGNORE).sum())


def finite(log: Mapping[str, Tensor]) -> bool:
    """One look at all terms of a step, since each look makes an accelerator wait."""
    return bool(torch.stack([term.isfinite().all() for term in log.values()]).all())


def refuse_infinite(log: Mapping[str, Tensor], batches: Sequence[Batch], t: int, saved: int | None) -> None:
    """RunFailure where a term is not finite."""
    names = ", ".join(name for name, term in log.items() if not term.isfinite().all())
    if names:
        files = ", ".join(name for batch in batches for scene in batch.scenes.values() for name in scene.names)
        raise RunFailure(
            f"step {t}: {names} is not finite for {files}; {kept(saved)}; train again "
            "with a lower optim.lr, a longer optim.warmup or --precision 32"
        )
