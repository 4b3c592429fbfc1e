"""A network as one graph: normalisation and upsampling inside, images in, classes or probabilities out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from segda.errors import RecipeError
from segda.evaluation.inference import Size
from segda.exporting.about import About
from segda.networks.network import Network

INPUT, OUTPUT = "image", "classes"
"""What input and output are called in every format."""


class Deployed(nn.Module):
    """(B, 3, H, W) as `about.input` says -> as `about.output` says. Weights in float32, or all in float16."""

    def __init__(self, network: Network, about: About):
        super().__init__()
        self.number = torch.float16 if about.precision == "16" else torch.float32
        self.network = copy.deepcopy(network).to(self.number).eval()
        self.about = about

    def forward(self, image: Tensor) -> Tensor:
        image = image.to(self.number)
        logits = self.network.infer(image / 255 if self.about.input == "uint8" else image).float()
        return logits.argmax(1).to(torch.uint8) if self.about.output == "ids" else logits.softmax(1)


def traced(network: Network, about: About) -> ExportedProgram:
    """The graph, for any number of images and, unless `about.size` says one, of any size. RecipeError for a network
    that has none.
    """
    height, width = about.size or example_of(network)
    kind = torch.uint8 if about.input == "uint8" else torch.float32
    sides = {} if about.size is not None else {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}
    module, example = Deployed(network, about), torch.zeros(2, 3, height, width, dtype=kind)
    try:
        with torch.no_grad():
            return torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: Dim.DYNAMIC, **sides}})
    # Every Exception: what torch meets in a network of somebody's own may be anything.
    except Exception as error:
        reason = next(line.strip() for line in (str(error) or type(error).__name__).splitlines() if line.strip())
        way = "" if about.size is not None else "; one size may do: --size WxH"
        raise RecipeError(
            f"torch.export cannot trace the network {about.network.get('name')}: {reason}{way}"
        ) from error


def example_of(network: Network) -> Size:
    """A size that stands for any: no side is the other, and the deepest map has several cells in both directions."""
    side = 4 * network.stride
    least = getattr(network, "smallest", 1)
    while side < least:
        side *= 2
    return side, side + network.stride


def refuse_any_size(network: Network, name: str) -> None:
    """RecipeError for a network whose graph depends on the size of the image."""
    if not network.any_size:
        raise RecipeError(f"{name}: what it computes depends on the image's size; say which one with --size WxH")
