"""Weights in shards (recipe key `shard`): each process keeps a part of every tensor, and of what its optimiser knows.

PyTorch's FSDP2. A block's weights are gathered when it runs, forward and backward, and its gradients are averaged where
they are reduced; so a process holds one whole block at a time. For encoders that fit no device with student, teacher,
constants and the optimiser's moments.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor, nn

from segda.distributed import group
from segda.errors import RecipeError
from segda.networks.network import lay_out, outermost

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

ASKED = ("features", "decode", "infer", "low_res_logits")
"""What is called of a network, besides `forward`."""


def shard(module: nn.Module, device: torch.device) -> None:
    """Shards every network in a module over all processes, block by block; what is in no network stays whole.

    The module may be on the host: each block goes to the device on its own. RecipeError for a network that names no
    blocks.
    """
    # Costs a second, and is not needed otherwise.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # It warns of views among what a network returns, which are safe as long as nobody writes to them, and nobody does.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (group.world(),))
    for network in outermost(module):
        if not network.blocks():
            raise RecipeError(
                f"shard: true: network {type(network).__name__} does not say what its blocks are; remove it, or give "
                "the network a function blocks(), see docs/ADDING.md"
            )
        lay_out(network, torch.contiguous_format)  # FSDP takes no other
        for part in (*network.blocks(), network):
            fully_shard(part, mesh=mesh)
        once(network, register_fsdp_forward_method)


def once(network: nn.Module, register: Callable[[nn.Module, str], None]) -> None:
    """Each call of a network gathers its weights, but not again for what it calls of itself inside. Such a part's
    backward pass would put them away before the rest of the call has had its own, as HRDA's detail, which the network
    inside sees.
    """
    inside = False

    def entered(plain: Callable[..., Any], gathering: Callable[..., Any]) -> Callable[..., Any]:
        def called(*inputs: Any, **settings: Any) -> Any:
            nonlocal inside
            if inside:
                return plain(*inputs, **settings)
            inside = True
            try:
                return gathering(*inputs, **settings)
            finally:
                inside = False

        return called

    # A module's own call has gathered before it comes to `forward`.
    network.forward = entered(network.forward, network.forward)
    for name in ASKED:
        plain = getattr(network, name)
        register(network, name)
        setattr(network, name, entered(plain, getattr(network, name)))


def is_shard(value: Any) -> TypeGuard[DTensor]:
    """Whether a tensor is a process's part of one (a DTensor, whose class costs a second to import)."""
    return hasattr(value, "full_tensor")


def rest(module: nn.Module) -> None:
    """Puts away what networks have gathered: after a forward pass without a backward pass, as the teacher's, some is
    still there, and weights of two networks can be added up only if both are in shards.
    """
    from torch.distributed.fsdp import FSDPModule

    for network in outermost(module):
        assert isinstance(network, FSDPModule)
        network.reshard()


def gather_full(tree: Any) -> Any:
    """A state with each shard replaced by the whole tensor, on the host of the first process; the others get None.

    All processes must call it, with the same state.
    """
    if is_shard(tree):
        full = tree.full_tensor()
        return full.cpu() if group.rank() == 0 else None
    if isinstance(tree, Mapping):
        return {key: gather_full(value) for key, value in tree.items()}
    return tree


def place(state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole tensors, which each process has, as shards where those of `like` are."""
    return {name: _placed(value, like.get(name)) for name, value in state.items()}


def beside(value: Tensor, weight: Tensor) -> Tensor:
    """A whole tensor in memory of its own, laid out and sharded as a weight of its shape is."""
    if is_shard(weight):
        return _placed(value, weight)
    return torch.empty_like(weight, dtype=value.dtype).copy_(value.detach())


def _placed(value: Tensor, like: Tensor | None) -> Tensor:
    if not is_shard(like) or is_shard(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    # No source: each process has the whole, read from the same file.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
