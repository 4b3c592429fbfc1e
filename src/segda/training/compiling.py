"""`compile: true`: what networks compute is compiled by torch (torch.compile), on accelerators."""

from __future__ import annotations

import torch

from segda.errors import RecipeError
from segda.methods.method import Method
from segda.networks.network import outermost


def refuse_compiling(device: torch.device) -> None:
    """RecipeError on a processor."""
    if device.type == "cpu":
        raise RecipeError(
            "compile: true is for accelerators; on a processor a step was a third slower, after two minutes of "
            "compiling. Remove it, or set device: cuda"
        )


def compile_networks(method: Method) -> None:
    """Has torch compile the passes of all networks that a method holds: student, teacher, what is frozen.

    It happens when each pass is first made, and again for images of other sizes. Names of weights stay as they are.
    What a pass asks Python for (HRDA's box, the number of windows) ends one graph and begins another.
    """
    for network in outermost(method):
        network.compile()
        network.infer = torch.compile(network.infer)  # type: ignore[method-assign]
        network.features = torch.compile(network.features)  # type: ignore[method-assign]
