"""A frozen vision transformer and a few weights that learn: tokens that refine its features after each block (Rein,
Wei et al., CVPR 2024), or low-rank changes of queries and values (LoRA, Hu et al., ICLR 2022).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class RefiningTokens(nn.Module):
    """Rein: the patches f (n, c) after block k become f + s ((S[1:] W_t(T[1:]) + f) W_f), S = softmax(f T' / sqrt c).

    T (count, c) are the block's tokens, made of two thin matrices of `rank`; W_t and W_f are layers with a bias that
    all blocks share, s starts at 0.001. The first token takes attention and gives nothing (w1m6/Rein `reins.py`).
    """

    def __init__(self, blocks: int, width: int, patch: int, *, count: int, rank: int):
        super().__init__()
        most = math.sqrt(6 / (3 * patch**2 + math.sqrt(width * rank)))
        self.left = nn.Parameter(torch.empty(blocks, count, rank).uniform_(-most, most))
        self.right = nn.Parameter(torch.empty(blocks, rank, width).uniform_(-most, most))
        self.given, self.change = nn.Linear(width, width), nn.Linear(width, width)
        for layer in (self.given, self.change):
            nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5))
        self.scale = nn.Parameter(torch.tensor(0.001))

    def forward(self, every: Tensor, prefix: int, block: int) -> Tensor:
        """(B, prefix + n, c) after a block; what stands before the patches stays."""
        before, patches = every.tensor_split([prefix], 1)
        tokens = self.left[block] @ self.right[block]
        attention = (patches @ tokens.T / math.sqrt(tokens.shape[1])).float().softmax(-1)
        given = attention[..., 1:].to(patches.dtype) @ self.given(tokens[1:]).to(patches.dtype)
        return torch.cat([before, patches + self.scale * self.change(given + patches)], 1)


class LowRank(nn.Linear):
    """A linear layer that stays, x W' + b, and what learns, x D' U': D (rank, inputs), and U (outputs, rank), 0 at
    first.
    """

    def __init__(self, plain: nn.Linear, rank: int):
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None)
        self.weight, self.bias = plain.weight, plain.bias
        self.down = nn.Parameter(torch.empty(rank, plain.in_features))
        self.up = nn.Parameter(torch.zeros(plain.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, cells: Tensor) -> Tensor:
        return super().forward(cells) + nn.functional.linear(nn.functional.linear(cells, self.down), self.up)


def low_rank(blocks: list[nn.Module], rank: int) -> None:
    """Gives the queries and values of each block what learns."""
    for block in blocks:
        attention = block.get_submodule("attention")
        for name in ("q_proj", "v_proj"):
            plain = attention.get_submodule(name)
            assert isinstance(plain, nn.Linear)
            setattr(attention, name, LowRank(plain, rank))


def tuned_weights(encoder: nn.Module) -> list[nn.Parameter]:
    """What learns of a tuned encoder."""
    found = [module for module in encoder.modules() if isinstance(module, RefiningTokens | LowRank)]
    return [weight for module in found for weight in module.parameters() if weight.requires_grad]
