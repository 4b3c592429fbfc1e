"""Building a network whose weights come from a file: what they would begin with is not drawn."""

from __future__ import annotations

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

DRAWS = {Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.trunc_normal_}
DRAWS |= {nn.init.kaiming_normal_, nn.init.kaiming_uniform_, nn.init.xavier_normal_, nn.init.xavier_uniform_}
"""Those of nn.init too: what they call is heard no more once they are."""


class Undrawn(TorchFunctionMode):
    """A block in which no parameter is drawn. Each keeps what its memory held, so all must be loaded afterwards.

    Other tensors are drawn as ever: a buffer may be in no file. torch's random state stays where it is as far as
    parameters go.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        drawn = args[0] if args else (kwargs or {}).get("tensor")
        if function in DRAWS and isinstance(drawn, nn.Parameter):
            return drawn
        return function(*args, **(kwargs or {}))
