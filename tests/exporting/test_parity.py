"""What is counted of a file and its network, worked by hand."""

import numpy as np
import torch
from torch import nn

from segda.exporting.about import About, Shown
from segda.exporting.exported import Exported
from segda.exporting.parity import parity_of

SHOWN = Shown(None, "keep", "bilinear", "whole", None, None, (1.0,), False, "after")


def about(output):
    classes = {"road": (0, 0, 0), "sky": (1, 1, 1)}
    return About("own", classes, "uint8", output, None, 1, "32", "recipe", "student", 4, {}, SHOWN)


class Even(nn.Module):
    """Says of four pixels that the first class has probability 0.5 + 0.1 i."""

    def infer(self, image):
        first = torch.tensor([[0.5, 0.6], [0.7, 0.8]])
        return torch.stack([first, 1 - first])[None].log()


def test_pixels_of_another_class_and_the_margin_between_them():
    # The network prefers the first class, but for a tie, which argmax gives to the first as well.
    said = np.array([[[0, 1], [0, 1]]], np.uint8)
    found = parity_of(Even(), Exported(about("ids"), lambda _: said, "file"), [torch.zeros(1, 3, 2, 2)])
    assert (found.images, found.pixels, found.same, found.share) == (1, 4, 2, 0.5)
    assert found.probability is None
    np.testing.assert_allclose(found.margin, 0.8 - 0.2, rtol=1e-6)
    assert found.sentence() == (
        "50.0000% of 4 pixels have the network's class (1 images; 2x2); the 2 others by a margin of 6.0e-01 at most"
    )


def test_the_largest_difference_of_a_probability():
    first = np.array([[0.5, 0.6], [0.4, 0.8]], np.float32)
    said = np.stack([first, 1 - first])[None]
    found = parity_of(Even(), Exported(about("probabilities"), lambda _: said, "file"), [torch.zeros(1, 3, 2, 2)])
    assert found.same == 3
    np.testing.assert_allclose([found.probability, found.margin], [0.3, 0.4], rtol=1e-5)


def test_softmax_of_what_a_file_gives_is_its_probabilities():
    said = np.array([[[[0.25]], [[0.75]]]], np.float32)
    logits = Exported(about("probabilities"), lambda _: said, "file").infer(torch.zeros(1, 3, 1, 1))
    np.testing.assert_allclose(logits.softmax(1).numpy(), said, rtol=1e-6)


def test_a_file_gets_the_bytes_of_the_image():
    seen = []

    def runner(images):
        seen.append(images)
        return np.zeros((1, 16, 16), np.uint8)

    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    Exported(about("ids"), runner, "file").infer(pixels / 255)
    np.testing.assert_array_equal(seen[0], pixels.numpy())
