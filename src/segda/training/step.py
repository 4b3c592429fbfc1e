"""One optimisation step from a method's generator."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from segda.errors import RunFailure
from segda.hardware import autocast
from segda.methods.method import Method
from segda.scene import Batch


def train_step(
    method: Method,
    batch: Batch,
    t: int,
    optimisers: Mapping[str, torch.optim.Optimizer],
    scaler: torch.amp.GradScaler,
    precision: torch.dtype,
) -> dict[str, Tensor]:
    """Pulls each dict of terms under autocast, adds up those with a gradient, goes backward outside autocast; then
    every player's optimiser steps. Returns all terms, detached.

    RunError, before any weight changes, when a term is not finite: with the step, the term and the batch's files.
    """
    for optimiser in optimisers.values():
        optimiser.zero_grad(set_to_none=True)
    log: dict[str, Tensor] = {}
    events = method.step(batch, t)
    while True:
        with autocast(batch.source.image.device, precision):
            terms = next(events, None)
        if terms is None:
            break
        if not torch.is_grad_enabled():
            raise AssertionError(
                f"{type(method).__name__} yielded inside torch.no_grad(): close the block before the yield"
            )
        log |= {name: term.detach() for name, term in terms.items()}
        scaler.scale(torch.stack([term for term in terms.values() if term.requires_grad]).sum()).backward()
        del terms  # with it goes the graph, before the next forward pass
    refuse_infinite(log, batch, t)
    for optimiser in optimisers.values():
        scaler.step(optimiser)
    scaler.update()
    return log


def refuse_infinite(log: Mapping[str, Tensor], batch: Batch, t: int) -> None:
    """One look at all terms of a step, since each look makes an accelerator wait."""
    finite = torch.stack([term.isfinite().all() for term in log.values()])
    if not finite.all():
        names = ", ".join(name for name, fine in zip(log, finite.tolist(), strict=True) if not fine)
        files = ", ".join((*batch.source.names, *batch.target.names))
        raise RunFailure(
            f"step {t}: {names} is not finite for {files}; the last checkpoint is kept; train again "
            "with a lower optim.lr, a longer optim.warmup or --precision 32"
        )
