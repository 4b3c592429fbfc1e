"""Optimisers of a method's players, and the learning rate as a pure function of the step."""

from __future__ import annotations

import torch

from segda.methods.method import Method
from segda.recipe import Optim


def optimisers(method: Method, settings: Optim) -> dict[str, torch.optim.Optimizer]:
    """One optimiser a player. Groups carry `base_lr`, which `set_lr` scales."""
    return {name: _adamw(getattr(method, name).groups(), settings) for name in method.players}


def _adamw(groups: dict[str, list[torch.nn.Parameter]], settings: Optim) -> torch.optim.Optimizer:
    """AdamW as DAFormer: the head `head_lr_factor` times faster, no weight decay on the encoder's norms."""
    rate = {"head": settings.lr * settings.head_lr_factor}
    decay = {"norm": 0.0}
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "name": name,
                "base_lr": rate.get(name, settings.lr),
                "weight_decay": decay.get(name, settings.weight_decay),
            }
            for name, parameters in groups.items()
        ],
        lr=settings.lr,
        betas=settings.betas,
        fused=all(parameter.device.type in ("cpu", "cuda") for group in groups.values() for parameter in group),
    )


def lr_at(t: int, steps: int, settings: Optim) -> float:
    """The factor of every base rate at step t (0-based): R(t) = (1 - t / steps)^power, and before `warmup`
    R(t) * (1 - (1 - t / warmup) * (1 - warmup_ratio)).  mmcv's poly schedule with linear warm-up, min_lr 0.
    """
    decayed = (1 - t / steps) ** settings.power
    if t < settings.warmup:
        decayed *= 1 - (1 - t / settings.warmup) * (1 - settings.warmup_ratio)
    return decayed


def set_lr(optimiser: torch.optim.Optimizer, factor: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = group["base_lr"] * factor
