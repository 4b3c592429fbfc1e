"""Inference against slow twins: full-size softmax, one window after another in numpy, networks that are a 1x1
convolution, bilinear upsampling written out.
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

from segda.evaluation import inference
from segda.evaluation.certainty import labels, labels_and_entropy, mean_logits, probabilities
from segda.evaluation.inference import View, slide, views
from segda.evaluation.look import Eye, look
from segda.scene import Scene, windows

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """A 1x1 convolution: each pixel's logits depend on that pixel alone, wherever the window is."""

    def __init__(self, classes: int = 4):
        super().__init__()
        self.conv = nn.Conv2d(3, classes, 1)
        generator = torch.Generator().manual_seed(5)
        nn.init.normal_(self.conv.weight, std=4, generator=generator)
        nn.init.normal_(self.conv.bias, generator=generator)

    align_corners = False

    def infer(self, image):
        return self.conv(image)

    def low_res_logits(self, image):
        return self.infer(image)


class Coarse(Pointwise):
    """Every eighth pixel's logits, from corner to corner, as DeepLab-v2's."""

    align_corners = True

    def infer(self, image):
        return interpolate(self.low_res_logits(image), image.shape[2:], mode="bilinear", align_corners=True)

    def low_res_logits(self, image):
        return self.conv(image)[..., ::8, ::8]


class Wide(Pointwise):
    """Sees its whole input: the same pixel has other logits in another window, or mirrored."""

    def infer(self, image):
        ramp = torch.linspace(0, 3, image.shape[-1]) + torch.linspace(0, 2, image.shape[-2])[:, None]
        return self.conv(image + ramp) + image.mean()


def settings_of(**changes):
    usual = {"resize": None, "shape": "keep", "kernel": "bilinear", "how": "whole", "flip": False}
    usual |= {"window": None, "stride": None, "scales": (1.0,), "softmax": "after"}
    return SimpleNamespace(**{**usual, **changes})


def label_of(network, image, settings):
    return labels(views(network, image, settings, CPU, nullcontext()), tuple(image.shape[1:]))


def picture(height, width, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), np.uint8))


def logits_of(classes, height, width, seed=0):
    return torch.randn(1, classes, height, width, generator=torch.Generator().manual_seed(seed)) * 3


def view_of(classes, height, width, seed=0, **facts):
    return View(logits_of(classes, height, width, seed), **{"align_corners": False, **facts})


def bilinear(values, size, align_corners):
    """(C, h, w) -> (C, H, W) in float64, written from the definition of the two conventions."""
    for axis, length in ((1, size[0]), (2, size[1])):
        cells = values.shape[axis]
        place = np.arange(length, dtype=np.float64)
        if align_corners:
            place = place * (cells - 1) / (length - 1)
        else:
            place = np.maximum((place + 0.5) * cells / length - 0.5, 0)
        low = np.minimum(np.floor(place).astype(int), cells - 1)
        high = np.minimum(low + 1, cells - 1)
        part = (place - low).reshape((-1, 1) if axis == 1 else (1, -1))
        values = np.take(values, low, axis) * (1 - part) + np.take(values, high, axis) * part
    return values


def softmax(scores):
    exp = np.exp(scores - scores.max(0))
    return exp / exp.sum(0)


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
    (ours,) = views(network, image, sliding, CPU, nullcontext())
    torch.testing.assert_close(ours.logits, whole[0].logits)


def test_an_image_smaller_than_the_window_is_seen_whole():
    network, image = Wide(), picture(7, 9)
    sliding = settings_of(how="slide", window=(64, 64), stride=(32, 32))
    (ours,) = views(network, image, sliding, CPU, nullcontext())
    (theirs,) = views(network, image, settings_of(), CPU, nullcontext())
    torch.testing.assert_close(ours.logits, theirs.logits)


@pytest.mark.parametrize("size, cut", [((20, 40), False), ((20, 41), True), ((500, 2), True)])
def test_a_large_image_is_seen_in_windows_unasked_unless_it_has_a_box(size, cut, monkeypatch, warned):
    for name, value in (("LARGEST", 800), ("PART", (16, 16)), ("STEP", (12, 12))):
        monkeypatch.setattr(inference, name, value)
    network, image = Wide(), picture(*size)
    theirs = settings_of(how="slide", window=(16, 16), stride=(12, 12)) if cut else settings_of()
    (ours,), (expected,) = (views(network, image, how, CPU, nullcontext()) for how in (settings_of(), theirs))
    assert torch.equal(ours.logits, expected.logits)
    assert inference.sizes_shown(size, settings_of()) == ([(16, min(16, size[1]))] if cut else [size])
    images = SimpleNamespace(read=lambda i, label: Scene(image))
    seen = look([Eye(network, settings_of(), CPU, nullcontext())], images, lambda sight: 1, title="x", indices=[0, 1])
    assert list(seen) == [1, 1]
    assert len(warned) == cut and all(f"{size[1]}x{size[0]} pixels" in line for line in warned)


def test_an_image_in_a_box_is_seen_whole_however_large_that_is(monkeypatch):
    monkeypatch.setattr(inference, "LARGEST", 800)
    network, image = Wide(), picture(60, 60)
    (ours,) = views(network, image, settings_of(resize=(60, 60)), CPU, nullcontext())
    with torch.no_grad():
        assert torch.equal(ours.logits, network.infer(image[None] / 255))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_class_by_class_gives_the_probabilities_of_one_softmax_over_all(count, align_corners):
    size = (13, 21)
    seen = [view_of(5, 4 + k, 7 + k, seed=k, align_corners=align_corners) for k in range(count)]
    ours = torch.stack(list(probabilities(seen, size)))
    full = [softmax(bilinear(view.logits[0].double().numpy(), size, align_corners)) for view in seen]
    theirs = sum(full) / count
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert (labels(seen, size).numpy() == theirs.argmax(0)).all()


def test_views_count_by_their_weights_whatever_these_sum_to():
    size = (6, 9)
    seen = [view_of(3, 4, 5, seed=k, weight=weight) for k, weight in enumerate((1.0, 3.0))]
    scores = [bilinear(view.logits[0].double().numpy(), size, False) for view in seen]
    np.testing.assert_allclose(
        torch.stack(list(mean_logits(seen, size))), 0.25 * scores[0] + 0.75 * scores[1], atol=1e-5
    )
    ours = torch.stack(list(probabilities(seen, size)))
    np.testing.assert_allclose(ours, 0.25 * softmax(scores[0]) + 0.75 * softmax(scores[1]), atol=1e-6)


def test_the_mean_of_logits_and_of_probabilities_may_name_other_classes():
    # One network is very sure of class 0; two others find class 1 a little likelier.
    sure, unsure = torch.tensor([9.0, 0, 0]).view(1, 3, 1, 1), torch.tensor([0, 2.0, 0]).view(1, 3, 1, 1)
    seen = [View(sure, True), View(unsure, True), View(unsure, True)]
    # Logits: (9, 4, 0) / 3. Probabilities: class 0 (0.99975 + 2 * 0.1065) / 3, class 1 (0.00012 + 2 * 0.787) / 3.
    assert labels(seen, (1, 1), "logits") == 0
    assert labels(seen, (1, 1), "probabilities") == 1


def test_extreme_logits_stay_finite():
    seen = [View(torch.tensor([[[[1e4]], [[-1e4]], [[0.0]]]]), align_corners=False)]
    assert [float(prob) for prob in probabilities(seen, (1, 1))] == [1, 0, 0]
    assert labels_and_entropy(seen, (1, 1))[1] == 0


def test_entropy_is_ln_c_where_all_classes_are_equal_and_worked_by_hand_elsewhere():
    logits = torch.tensor([[0.0, np.log(3.0)], [0.0, 0.0]]).view(1, 2, 1, 2).float()  # p = 1/2, 1/2 and 3/4, 1/4
    label, entropy = labels_and_entropy([View(logits, align_corners=False)], (1, 2))
    np.testing.assert_allclose(entropy[0], [np.log(2), -0.75 * np.log(0.75) - 0.25 * np.log(0.25)], rtol=1e-6)
    assert label.tolist() == [[0, 0]]


def test_the_mirrored_view_is_turned_back_before_averaging():
    network, image = Wide(), picture(9, 14)
    upright, mirrored = views(network, image, settings_of(flip=True), CPU, nullcontext())
    with torch.no_grad():
        theirs = network.infer(torch.from_numpy(image.numpy()[None, :, :, ::-1].copy()).float() / 255)
    np.testing.assert_allclose(mirrored.logits, theirs.numpy()[..., ::-1], rtol=1e-6)
    assert not torch.allclose(upright.logits, mirrored.logits)
    assert upright.weight == mirrored.weight == 0.5


def test_a_mirrored_image_gets_the_mirrored_label_when_views_are_averaged():
    network, image = Wide(), picture(16, 12, seed=3)
    both = settings_of(flip=True)
    ours = label_of(network, image.flip(-1), both).flip(-1)
    assert (ours == label_of(network, image, both)).all()


@pytest.mark.parametrize("size", [(37, 53), (64, 48), (33, 101)])
def test_the_label_has_the_images_own_size_whatever_the_network_saw(size):
    label = label_of(Pointwise(), picture(*size), settings_of(resize=(40, 17)))
    assert label.shape == size and label.dtype == torch.uint8


def test_a_resized_image_is_upsampled_back_from_the_networks_input_size():
    network, image = Wide(), picture(30, 40)
    ours = label_of(network, image, settings_of(resize=(20, 15)))
    small = cv2.resize(image.permute(1, 2, 0).numpy().copy(), (20, 15), interpolation=cv2.INTER_LINEAR)
    with torch.no_grad():
        logits = network.infer(torch.from_numpy(small).permute(2, 0, 1)[None].float() / 255)
    theirs = interpolate(logits, (30, 40), mode="bilinear", align_corners=False).argmax(1)[0]
    assert (ours == theirs).all()


def test_sums_over_pixels_are_float32_under_autocast():
    (view,) = views(Pointwise(), picture(8, 8), settings_of(), CPU, torch.autocast("cpu", torch.bfloat16))
    assert view.logits.dtype == torch.float32


def test_no_graph_is_kept():
    (view,) = views(Pointwise(), picture(8, 8), settings_of(), CPU, nullcontext())
    assert not view.logits.requires_grad


def test_coarse_logits_go_to_the_images_size_at_once_from_corner_to_corner():
    network, image = Coarse(), picture(60, 90)
    settings = settings_of(resize=(41, 33), shape="stretch")
    (view,) = views(network, image, settings, CPU, nullcontext())
    assert view.logits.shape == (1, 4, 5, 6) and view.align_corners
    scores = bilinear(view.logits[0].double().numpy(), (60, 90), align_corners=True)
    assert (label_of(network, image, settings).numpy() == scores.argmax(0)).all()


def test_a_sliding_window_works_at_the_networks_input_size():
    network, image = Coarse(), picture(33, 49)
    sliding = settings_of(how="slide", window=(17, 17), stride=(8, 16))
    (view,) = views(network, image, sliding, CPU, nullcontext())
    assert view.logits.shape == (1, 4, 33, 49)
    with torch.no_grad():  # the last window in the first row of windows overlaps none at the right edge
        theirs = network.infer(image[None, :, :17, 32:].float() / 255)
    np.testing.assert_allclose(view.logits[..., :8, 33:], theirs[..., :8, 1:], atol=1e-5)


def test_coarse_logits_of_the_mirrored_image_are_turned_back():
    network, image = Coarse(), picture(33, 49)  # 49 = 6 * 8 + 1: every eighth pixel from either side
    upright, mirrored = views(network, image, settings_of(flip=True), CPU, nullcontext())
    torch.testing.assert_close(upright.logits, mirrored.logits)


def test_what_was_predicted_on_padding_is_cut_off():
    network, image = Coarse(), picture(30, 40)
    settings = settings_of(resize=(64, 32), shape="pad", kernel="bicubic")
    (view,) = views(network, image, settings, CPU, nullcontext())
    assert view.covers == (30, 60)
    scores = bilinear(view.logits[0].double().numpy(), (30, 60), align_corners=True)[:, :, :40]
    ours = label_of(network, image, settings)
    assert ours.shape == (30, 40)
    assert (ours.numpy() == scores.argmax(0)).all()
    # The right third of the network's input is black: the bias alone decides there.
    black = network.conv.bias.detach().view(4, 1, 1).expand(4, 4, 2)
    torch.testing.assert_close(view.logits[0, :, :, 6:], black)
