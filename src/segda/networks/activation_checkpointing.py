"""Less memory for more time: the encoder's maps are computed again in the backward pass (Chen et al., "Training Deep
Nets with Sublinear Memory Cost", 2016).

Of each block only what goes into it is kept from the forward to the backward pass; then the block runs once more. What
comes out is the same to the bit where the device's arithmetic repeats itself, as a processor's does: torch's random
state and autocast are those of the first time, and what a block counts of what it sees (batch norm's running
statistics) is counted the first time alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segda.errors import RecipeError


def checkpoint_activations(network: nn.Module) -> None:
    """From now on the blocks of a network keep no more than their inputs for the backward pass; where gradients are
    off, nothing changes. Names of weights stay as they are. RecipeError for a network that names no blocks.
    """
    blocks: list[nn.Module] = getattr(network, "blocks", list)()
    if not blocks:
        raise RecipeError(
            f"activation_checkpointing: true: network {type(network).__name__} does not say what its blocks are; "
            "remove it, or give the network a function blocks(), see docs/ADDING.md"
        )
    for block in blocks:
        # In place of the block's `forward`, not around its call: hooks, as those of sharding, run once.
        block.forward = partial(_again, block, block.forward)


def _again(block: nn.Module, forward: Callable[..., Any], *inputs: Any, **settings: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **settings)
    return checkpoint(
        forward, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), _Spare(block)), **settings
    )


class _Spare:
    """Inside, the buffers of a module are copies, so that nothing is counted twice. May be entered again and again."""

    def __init__(self, module: nn.Module):
        self.module = module
        self.kept: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        self.kept = [
            (module, name, buffer)
            for module in self.module.modules()
            for name, buffer in module.named_buffers(recurse=False)
        ]
        for module, name, buffer in self.kept:
            setattr(module, name, buffer.clone())

    def __exit__(self, *error: object) -> None:
        for module, name, buffer in self.kept:
            setattr(module, name, buffer)
        self.kept = []
