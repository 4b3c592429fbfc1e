"""What keeps the processes of a training alike: their gradients, the statistics of their batch norms, and a check.

Each process computes a share of a step (shares.py) on its own copy of everything. When the last backward pass
of a step is over, the gradients are averaged, once, however many backward passes the method has, and methods know
nothing of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from segda.distributed import group
from segda.distributed.sharding import is_shard
from segda.distributed.sync_norm import SyncNorm
from segda.errors import RunFailure, kept


def average_gradients(optimisers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Of all players; those of sharded weights (`shard`) are averaged by whoever shards them."""
    parameters = (
        one for optimiser in optimisers.values() for group in optimiser.param_groups for one in group["params"]
    )
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    group.average([gradient for gradient in gradients if not is_shard(gradient)])


def average_statistics(module: nn.Module) -> None:
    """The running mean and variance of each batch norm that has seen this process's scenes: then they are of all.

    Each is the mean of the processes' own, whether a batch norm's statistics of a batch are of all (`sync_batchnorm`)
    or not.
    """
    norms = [one for one in module.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training]
    running = [value for norm in norms for value in (norm.running_mean, norm.running_var) if value is not None]
    group.average(running)


def compare(module: nn.Module, t: int, saved: int | None = None) -> None:
    """RunFailure, in each process, unless all have the same weights and buffers: with the first that differs.

    saved: the step after which the run was last saved, for the message.
    """
    if group.world() == 1:
        return
    marks = dict(_marks(module))
    names = list(marks)
    everyone = group.gathered(torch.tensor(list(marks.values()), dtype=torch.int64)[None])
    odd = (everyone != everyone[0]).any(0).nonzero().flatten().tolist()
    if odd:
        others = (everyone[:, odd[0]] != everyone[0, odd[0]]).nonzero().flatten().tolist()
        more = f" and {len(odd) - 1} more tensors" if len(odd) > 1 else ""
        message = (
            f"step {t}: {names[odd[0]]}{more} of process {', '.join(map(str, others))} is not what it is in process 0; "
            f"{kept(saved)}. Give all machines the same segda, torch and weights to start from; if they "
            "have, one of them computes wrongly, or a part of the method keeps what it should share"
        )
        group.all_succeed(lambda: _fail(message))


def _fail(message: str) -> None:
    raise RunFailure(message)


def _marks(module: nn.Module) -> Iterator[tuple[str, int]]:
    """Name and hash of all that must be the same in each process; of sharded tensors each has a part of its own."""
    for name, value in module.state_dict().items():
        if not is_shard(value):
            yield name, mark(value)


def mark(value: Tensor) -> int:
    """The first 63 bits of SHA-256 of a tensor's bytes."""
    content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little") >> 1


def synchronise(module: nn.Module) -> nn.Module:
    """The module with each batch norm replaced by one that normalises with the statistics of all processes' scenes."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, SyncNorm.of(child))
        else:
            synchronise(child)
    return module
