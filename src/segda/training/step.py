"""One optimisation step from a method's generator: in one micro-batch or several, in one process or several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from segda.data.stream.loading import refuse_sizes
from segda.distributed import group, sync
from segda.distributed.shares import Turn, Turns
from segda.errors import RunFailure
from segda.ground.hardware import autocast
from segda.methods.method import Method
from segda.networks.dropout import number_scenes
from segda.scene import IGNORE, Batch, Scene


def train_step(
    method: Method,
    batches: Sequence[Batch],
    t: int,
    optimisers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
    seed: Callable[[], None] = lambda: None,
) -> dict[str, Tensor]:
    """The gradient of all terms over all scenes of the step, then every player's optimiser steps.

    batches: this process's, the micro-batches of the step. seed: puts torch's random state where each of them begins.
    Returns the means of all terms over micro-batches and processes, detached.

    RunFailure, before any weight changes, when a term is not finite: with the step, the term and the batch's files.
    """
    for optimiser in optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    count, first_scene = len(batches), number_scenes(method)
    assert all(batch.share.count == group.world() * count for batch in batches), "a batch has another step's share"

    def enter(number: int) -> None:
        first_scene(batches[number].share.first_scene)

    def one(turn: Turn) -> dict[str, Tensor]:
        batch = batches[turn.number]
        return backward(method, batch.replace(share=batch.share.taking(turn)), t, scaler, precision, count)

    try:
        if count == 1:
            enter(0)
            seed()
            log = backward(method, batches[0], t, scaler, precision, count)
        else:
            logs = Turns[dict[str, Tensor]](count, seed, enter).run(one)
            log = {name: torch.stack([each[name] for each in logs]).mean(0) for name in logs[0]}
    finally:
        first_scene(0)
    own = log
    if group.world() > 1:
        log = {name: term.clone() for name, term in log.items()}
        group.average(list(log.values()))
        sync.average_gradients(optimisers)
        sync.average_statistics(method)
    if not finite(log):
        # In the mean over processes what is not finite in one is so in all: nobody goes on alone.
        group.all_succeed(lambda: refuse_infinite(own, batches, t))
    for optimiser in optimisers.values():
        scaler.step(optimiser)
    scaler.update()
    return log


def backward(
    method: Method, batch: Batch, t: int, scaler: torch.amp.GradScaler, precision: torch.dtype, count: int
) -> dict[str, Tensor]:
    """One micro-batch of `count`: pulls each dict of terms under autocast, adds up those with a gradient, goes backward
    outside autocast.

    Returns all terms, detached. The gradient is that of the mean over the micro-batches.
    """
    log: dict[str, Tensor] = {}
    events = method.step(batch, t)
    while True:
        with autocast(batch.target.image.device, precision):
            terms = next(events, None)
        if terms is None:
            return log
        if not torch.is_grad_enabled():
            raise AssertionError(
                f"{type(method).__name__} yielded inside torch.no_grad(): close the block before the yield"
            )
        log |= {name: term.detach() for name, term in terms.items()}
        loss = torch.stack([term for term in terms.values() if term.requires_grad]).sum()
        scaler.scale(loss / count).backward()
        del terms, loss  # with them goes the graph, before the next forward pass


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


def refuse_infinite(log: Mapping[str, Tensor], batches: Sequence[Batch], t: int) -> None:
    """RunFailure where a term is not finite."""
    names = ", ".join(name for name, term in log.items() if not term.isfinite().all())
    if names:
        files = ", ".join(name for batch in batches for scene in batch.scenes.values() for name in scene.names)
        raise RunFailure(
            f"step {t}: {names} is not finite for {files}; the last checkpoint is kept; train again "
            "with a lower optim.lr, a longer optim.warmup or --precision 32"
        )
