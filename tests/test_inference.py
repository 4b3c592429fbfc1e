"""Inference against slow twins: full-size softmax, one window after another in numpy, networks that are a 1x1
convolution.
"""

from contextlib import nullcontext
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn
from torch.nn.functional import interpolate

from segda.evaluation.inference import (
    label_of,
    labels,
    labels_and_entropy,
    probabilities,
    slide,
    views,
    windows,
)

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """A 1x1 convolution: each pixel's logits depend on that pixel alone, wherever the window is."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 1)
        generator = torch.Generator().manual_seed(5)
        nn.init.normal_(self.conv.weight, std=4, generator=generator)
        nn.init.normal_(self.conv.bias, generator=generator)

    def infer(self, image):
        return self.conv(image)


class Wide(Pointwise):
    """Sees its whole input: the same pixel has other logits in another window, or mirrored."""

    def infer(self, image):
        ramp = torch.linspace(0, 3, image.shape[-1]) + torch.linspace(0, 2, image.shape[-2])[:, None]
        return self.conv(image + ramp) + image.mean()


def settings_of(**changes):
    usual = {"resize": None, "how": "whole", "window": None, "stride": None, "flip": False}
    return SimpleNamespace(**{**usual, **changes})


def picture(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8))


def logits_of(classes, height, width, seed=0):
    return torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(seed)) * 3


@given(side=some.integers(1, 200), window=some.integers(1, 90), stride=some.integers(1, 90))
@settings(max_examples=200, deadline=None)
def test_windows_cover_a_side_and_stay_inside(side, window, stride):
    stride = min(stride, window)  # a longer stride leaves gaps, on purpose of whoever asks for it
    firsts = windows(side, window, stride)
    seen = {pixel for first in firsts for pixel in range(first, min(first + window, side))}
    assert seen == set(range(side))
    assert firsts[0] == 0 and firsts[-1] + window == max(side, window)
    assert len(firsts) == max(-(-(side - window) // stride), 0) + 1


def test_sliding_windows_are_averaged_as_a_plain_loop_does():
    network, image = Wide(), torch.rand(1, 3, 11, 17, generator=torch.Generator().manual_seed(1))
    window, stride = (6, 8), (4, 5)
    with torch.no_grad():
        ours = slide(network, image, window, stride)
        sums, visits = np.zeros((4, 11, 17)), np.zeros((11, 17))
        for top in (0, 4, 5):  # by hand: 8 would end at 14, so the last window starts at 11 - 6
            for left in (0, 5, 9):
                seen = network.infer(image[:, :, top : top + 6, left : left + 8])[0].numpy()
                for y in range(6):
                    for x in range(8):
                        sums[:, top + y, left + x] += seen[:, y, x]
                        visits[top + y, left + x] += 1
    np.testing.assert_allclose(ours[0], sums / visits, rtol=1e-5, atol=1e-5)


def test_windows_do_not_matter_to_a_network_that_sees_single_pixels():
    network, image = Pointwise(), picture(23, 37)
    whole = views(network, image, settings_of(), CPU, nullcontext())
    sliding = settings_of(how="slide", window=(8, 16), stride=(5, 11))
    torch.testing.assert_close(views(network, image, sliding, CPU, nullcontext()), whole)


def test_an_image_smaller_than_the_window_is_seen_whole():
    network, image = Wide(), picture(7, 9)
    sliding = settings_of(how="slide", window=(64, 64), stride=(32, 32))
    ours = views(network, image, sliding, CPU, nullcontext())
    torch.testing.assert_close(ours, views(network, image, settings_of(), CPU, nullcontext()))


@pytest.mark.parametrize("count", [1, 2])
def test_class_by_class_gives_the_probabilities_of_one_softmax_over_all(count):
    size = (13, 21)
    seen = [logits_of(5, 4 + k, 7 + k, seed=k) for k in range(count)]
    ours = torch.stack(list(probabilities(seen, size)))
    full = [interpolate(each, size, mode="bilinear", align_corners=False).double().softmax(1)[0] for each in seen]
    theirs = sum(full) / count
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (labels(seen, size) == theirs.argmax(0)).all()


def test_extreme_logits_stay_finite():
    seen = [torch.tensor([[[[1e4]], [[-1e4]], [[0.0]]]])]
    assert [float(prob) for prob in probabilities(seen, (1, 1))] == [1, 0, 0]
    assert labels_and_entropy(seen, (1, 1))[1] == 0


def test_entropy_is_ln_c_where_all_classes_are_equal_and_worked_by_hand_elsewhere():
    seen = [torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]]).view(1, 2, 1, 2).float()]  # p = 1/2, 1/2 and 3/4, 1/4
    label, entropy = labels_and_entropy(seen, (1, 2))
    np.testing.assert_allclose(entropy[0], [np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)], rtol=1e-6)
    assert label.tolist() == [[0, 0]]


def test_the_mirrored_view_is_turned_back_before_averaging():
    network, image = Wide(), picture(9, 14)
    upright, mirrored = views(network, image, settings_of(flip=True), CPU, nullcontext())
    with torch.no_grad():
        theirs = network.infer(torch.from_numpy(image.numpy()[None, :, :, ::-1].copy()).float() / 255)
    np.testing.assert_allclose(mirrored, theirs.numpy()[..., ::-1], rtol=1e-6)
    assert not torch.allclose(upright, mirrored)


def test_a_mirrored_image_gets_the_mirrored_label_when_views_are_averaged():
    network, image = Wide(), picture(16, 12, seed=3)
    both = settings_of(flip=True)
    ours = label_of(network, image.flip(-1), both, CPU, nullcontext()).flip(-1)
    assert (ours == label_of(network, image, both, CPU, nullcontext())).all()


@pytest.mark.parametrize("size", [(37, 53), (64, 48), (33, 101)])
def test_the_label_has_the_images_own_size_whatever_the_network_saw(size):
    label = label_of(Pointwise(), picture(*size), settings_of(resize=(40, 17)), CPU, nullcontext())
    assert label.shape == size and label.dtype == torch.uint8


def test_a_resized_image_is_upsampled_back_from_the_networks_input_size():
    network, image = Wide(), picture(30, 40)
    ours = label_of(network, image, settings_of(resize=(20, 15)), CPU, nullcontext())
    small = cv2.resize(image.permute(1, 2, 0).numpy().copy(), (20, 15), interpolation=cv2.INTER_LINEAR)
    with torch.no_grad():
        logits = network.infer(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)
    theirs = interpolate(logits, (30, 40), mode="bilinear", align_corners=False).argmax(1)[0]
    assert (ours == theirs).all()


def test_sums_over_pixels_are_float32_under_autocast():
    (logits,) = views(Pointwise(), picture(8, 8), settings_of(), CPU, torch.autocast("cpu", torch.bfloat16))
    assert logits.dtype == torch.float32


def test_no_graph_is_kept():
    (logits,) = views(Pointwise(), picture(8, 8), settings_of(), CPU, nullcontext())
    assert not logits.requires_grad
