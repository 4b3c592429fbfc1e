"""Networks as graphs: one of each kind, at sizes that it was not traced at. All rows: benchmarks/export_table.py."""

import numpy as np
import pytest
import torch

from networks.test_network_table import SMALL, built
from segda.errors import RecipeError
from segda.exporting.about import About, Shown
from segda.exporting.graph import Deployed, example_of, traced

pytestmark = pytest.mark.long

SHOWN = Shown(None, "keep", "bilinear", "whole", None, None, (1.0,), False, "after")


def about(size=None, input="float"):
    classes = {"road": (0, 0, 0), "sky": (1, 1, 1)}
    return About("own", classes, input, "probabilities", size, 1, "32", "recipe", "student", 4, {"name": "x"}, SHOWN)


@pytest.mark.parametrize("name", ["relit", "isa_fusion", "dinov3_convnext_micro"])
def test_a_graph_is_of_any_size_and_number_of_images(name):
    """Those that pad, cut into squares, and resize what they see."""
    network = built(name).eval()
    module = traced(network, about()).module(check_guards=False)
    height, width = example_of(network)
    for shape in ((3, 3, height + 1, width + 5), (1, 3, 2 * height - 3, width), (2, 3, width, height)):
        image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(module(image), network.infer(image).softmax(1))


def test_windows_of_any_number_of_images_are_not_a_sequence():
    """Which onnxscript cannot fold: HRDA's export to ONNX ended with its traceback."""
    program = traced(built("hrda").eval(), about(size=(64, 96)))
    used = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not {name for name in used if "chunk" in name or "split" in name}


def test_every_network_says_whether_its_graph_is_of_any_size():
    fixed = {name for name in SMALL if not built(name).any_size}
    assert fixed == {"hrda", "vfm", "dinov2_tiny"}


def test_bytes_are_divided_by_255_inside():
    network = built("deeplab_v2 with one head").eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 33, 40), np.uint8))
    with torch.no_grad():
        found = Deployed(network, about(input="uint8"))(image)
        torch.testing.assert_close(found, network.infer(image / 255).softmax(1))


class Colours(torch.nn.Module):
    """Three classes whose logits are the image's colours, as it sees them."""

    def infer(self, image):
        return image


def test_white_is_one_and_bytes_keep_their_ratios():
    grey = torch.tensor([[0, 51, 255]], dtype=torch.uint8).reshape(1, 3, 1, 1)
    found = Deployed(Colours(), about(input="uint8"))(grey).flatten()
    torch.testing.assert_close(found, torch.tensor([0, 0.2, 1]).softmax(0))


class Odd(torch.nn.Module):
    stride = 8

    def infer(self, image):
        return image if image.sum() > 0 else -image


def test_what_torch_cannot_trace_is_said_in_one_line():
    with pytest.raises(RecipeError, match=r"torch.export cannot trace the network x: .*; one size may do: --size WxH"):
        traced(Odd(), about())
