"""Optimisers of a method's players, made of their settings in a recipe; the learning rate as a function of the step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from segda.distributed.sharding import is_shard
from segda.errors import RecipeError
from segda.networks.network import Network
from segda.recipes.optimisers import Optim, Schedule

if TYPE_CHECKING:
    from segda.methods.method import Method

Groups = dict[str, list[torch.nn.Parameter]]
Row = dict[str, Any]
"""One parameter group, as torch's optimisers take it."""


STEP = "step"
"""Among what Adam knows of a weight: one number, of its own type."""


def known_of(optimiser: Optimizer, weight: Tensor) -> dict[str, Tensor]:
    """What an optimiser knows of a weight that it has moved, of the right shapes and types."""
    if isinstance(optimiser, torch.optim.Adam | torch.optim.AdamW):
        return {STEP: torch.zeros(()), "exp_avg": weight, "exp_avg_sq": weight}
    return {"momentum_buffer": weight}


def weights_of(optimiser: Optimizer) -> list[torch.nn.Parameter]:
    return [weight for row in optimiser.param_groups for weight in row["params"]]


TIMES = {"blocks": 3, "shortcuts": 4}
"""How often ADVENT's parameter list holds each tensor of a group; all others once.

valeoai/ADVENT deeplabv2.py:147-153: the parameters of every nested module are listed, so a convolution's by its stage,
its block and itself.
"""


def optimisers(method: Method, settings: Mapping[str, Optim]) -> dict[str, torch.optim.Optimizer]:
    """One optimiser a player, by its name. Groups carry `base_lr`, which `set_lr` starts from."""
    return {
        name: optimiser(player.groups(), settings[name], player.layers() if isinstance(player, Network) else ())
        for name, player in ((name, method.player(name)) for name in method.players)
    }


def optimiser(groups: Groups, settings: Optim, layers: Sequence[Sequence[torch.nn.Parameter]] = ()) -> Optimizer:
    """layers: what learns of the encoder, layer by layer, for rates that differ from one to the next."""
    factor = {} if settings.name == "adam" else {"head": settings.head_lr_factor}
    rows: list[Row] = [
        {"params": parameters, "name": name, "base_lr": settings.lr * factor.get(name, 1)}
        for name, parameters in groups.items()
    ]
    every = [parameter for group in groups.values() for parameter in group]
    # Of what is done at once, torch can do some to shards.
    fused = all(parameter.device.type in ("cpu", "cuda") and not is_shard(parameter) for parameter in every)
    if settings.name == "adam":
        return torch.optim.Adam(rows, lr=settings.lr, betas=settings.betas, fused=fused)
    if settings.name == "adamw":
        for row in rows:
            row["weight_decay"] = 0.0 if row["name"] == "norm" else settings.weight_decay
        if settings.layer_decay is not None:
            rows = layer_by_layer(rows, layers, settings.layer_decay)
        return torch.optim.AdamW(rows, lr=settings.lr, betas=settings.betas, fused=fused)
    lr, momentum, weight_decay = settings.lr, settings.momentum, settings.weight_decay
    if settings.backbone_updates == "once":
        return torch.optim.SGD(rows, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=fused)
    if not TIMES.keys() & groups.keys():
        raise RecipeError(
            "optim.backbone_updates: authors has no effect on this network: only DeepLab-v2's parameters were listed "
            "several times; set it to once"
        )
    for row in rows:
        row["times"] = TIMES.get(row["name"], 1)
    return RepeatedSGD(rows, lr=lr, momentum=momentum, weight_decay=weight_decay)


def layer_by_layer(rows: list[Row], layers: Sequence[Sequence[torch.nn.Parameter]], decay: float) -> list[Row]:
    """The groups, the encoder's split by layers: layer k of n, the stem 0, learns decay^(n - 1 - k) times as fast as
    the last one. What is in no layer stays as it is.
    """
    if not layers:
        raise RecipeError("optim.layer_decay: has no effect: the network does not say what its layers are; remove it")
    place = {weight: k for k, layer in enumerate(layers) for weight in layer}
    found = []
    for row in rows:
        for k in (None, *range(len(layers))):
            weights = [weight for weight in row["params"] if place.get(weight) == k]
            if weights:
                name, rate = row["name"], row["base_lr"]
                changed = (
                    {} if k is None else {"name": f"{name}/{k:02d}", "base_lr": rate * decay ** (len(layers) - 1 - k)}
                )
                found.append(row | {"params": weights} | changed)
    return found


class RepeatedSGD(torch.optim.Optimizer):
    """SGD with momentum that applies one gradient `times` times in a row, as torch does to a tensor listed so often.

    Each time, with gradient g, weight p, buffer b:  d = g + weight_decay p;  b = momentum b + d;  p = p - lr b.
    In a tensor's first step every repetition begins a buffer of its own, b = d, and the last one stays (torch 2.13,
    for-loop implementation; recorded from ADVENT's trainer). With times = 1 it is torch's own SGD.
    """

    def __init__(self, groups: list[Row], *, lr: float, momentum: float, weight_decay: float):
        super().__init__(groups, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "times": 1})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # torch's also take a closure; ours never do
        for group in self.param_groups:
            due: list[Tensor] = [weight for weight in group["params"] if weight.grad is not None]
            begun = [weight for weight in due if "momentum_buffer" in self.state[weight]]
            new = [weight for weight in due if "momentum_buffer" not in self.state[weight]]
            for weights, first in ((begun, False), (new, True)):
                if weights:
                    self._move(weights, group, first)

    def _move(self, weights: list[Tensor], group: Row, first: bool) -> None:
        """first: whether it is the first step of these weights."""
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        buffers: list[Tensor] | tuple[Tensor, ...]
        buffers = [] if first else [self.state[weight]["momentum_buffer"] for weight in weights]
        for _ in range(group["times"]):
            change = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
            if first:
                buffers = change
            else:
                torch._foreach_mul_(buffers, group["momentum"])
                torch._foreach_add_(buffers, change)
            torch._foreach_add_(weights, buffers, alpha=-group["lr"])
        for weight, buffer in zip(weights, buffers, strict=True):
            self.state[weight]["momentum_buffer"] = buffer


def lr_at(t: int, steps: int, settings: Schedule, base: float) -> float:
    """The rate at step t (0-based) of a group that starts from `base`: R(t) = base d + min_lr (1 - d) with
    d = (1 - max(0, t - hold) / (decay_steps - hold))^power, and before `warmup` R(t) * (1 - (1 - t / warmup) *
    (1 - warmup_ratio)). decay_steps is the run's `steps` unless it is set. With `stairs`, d is that of their end.

    mmcv's poly schedule with linear warm-up; without warm-up, and min_lr 0, ADVENT's; with hold and stairs, CycleGAN's.
    With `warmup_full`, before `warmup`, base * (warmup_ratio + (1 - warmup_ratio) t / (warmup - 1)): VFM-UDA's.
    """
    if settings.warmup_full and t < settings.warmup:
        assert settings.warmup_ratio is not None
        return base * (settings.warmup_ratio + (1 - settings.warmup_ratio) * t / (settings.warmup - 1))
    end = settings.decay_steps or steps
    due = t if settings.stairs is None else min(end, (t // settings.stairs + 1) * settings.stairs)
    decay = (1 - (due - settings.hold) / (end - settings.hold)) ** settings.power if due > settings.hold else 1.0
    warm = 1.0
    if t < settings.warmup:
        assert settings.warmup_ratio is not None
        warm = 1 - (1 - t / settings.warmup) * (1 - settings.warmup_ratio)
    return base * (decay * warm) + settings.min_lr * (1 - decay) * warm


def set_lr(optimiser: torch.optim.Optimizer, t: int, steps: int, settings: Schedule) -> None:
    for group in optimiser.param_groups:
        group["lr"] = lr_at(t, steps, settings, group["base_lr"])
