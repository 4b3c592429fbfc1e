"""FDA's formulas and labels against values recorded from its authors' code (golden/classics)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from golden import Golden
from segda.distributed.shares import ALONE
from segda.errors import DataError
from segda.evaluation.certainty import most_probable, probabilities
from segda.evaluation.inference import View
from segda.networks.deeplab import upsample
from segda.parts.entropy import robust_entropy
from segda.parts.fourier import swap
from segda.parts.losses import cross_entropy
from segda.pseudo_labelling.order_statistics import order_statistics
from segda.pseudo_labelling.rules import RULES, labels_kept, rule_spec
from segda.recipes.build import build
from segda.scene import IGNORE

GOLDEN = Golden("classics")
SWAPS = GOLDEN.npz("fda_swap.npz")

GREY_LEVELS = 2e-4
"""Of 255; README of the recorded set: a float32 picture against a float64 one."""

VALUE, MAPS = 1e-6, 1e-5
"""README of the recorded set: relative of a single pass's value, absolute of its maps."""


# The swap


def pictures(kind: str, size: str) -> tuple[Tensor, Tensor]:
    """The source and the target of a recorded swap, (1, C, H, W) of 0 .. 255."""
    height, width = map(int, size.split("x"))
    shape = (1 if kind == "gray" else 3, height, width)
    name = "fda.gray.{}" if kind == "gray" else f"fda.noise.{{}}.{size}"
    found = []
    for domain in ("source", "target"):
        stored = SWAPS.get(f"input_structured_{domain}_{size}") if kind == "structured" else None
        found.append(GOLDEN.integers(name.format(domain), 0, 256, shape) if stored is None else stored)
    source, target = (torch.from_numpy(picture.astype(np.float32))[None] for picture in found)
    return source, target


@pytest.mark.parametrize("case", [key for key in SWAPS if "_torch_" not in key and not key.startswith("input")])
def test_a_swapped_picture_is_that_of_the_authors_numpy_function(case):
    kind, size, beta = case.split("_")
    ours = swap(*pictures(kind, size), float(beta))
    np.testing.assert_allclose(ours[0].numpy(), SWAPS[case], rtol=0, atol=GREY_LEVELS)


def slow(source: np.ndarray, target: np.ndarray, beta: float) -> np.ndarray:
    """The paper's words in float64: the whole spectrum, its zero in the middle, a square of it replaced."""
    height, width = source.shape
    ours, theirs = (np.fft.fftshift(np.fft.fft2(picture.astype(np.float64))) for picture in (source, target))
    amplitude, phase = np.abs(ours), np.angle(ours)
    b = int(np.floor(beta * min(height, width)))
    for v in range(height):
        for u in range(width):
            if abs(v - height // 2) <= b and abs(u - width // 2) <= b:
                amplitude[v, u] = np.abs(theirs[v, u])
    return np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * phase))).real


@pytest.mark.parametrize("size", [(12, 17), (17, 12), (9, 9), (8, 8), (2, 3), (1, 5)])
@pytest.mark.parametrize("beta", [0.0, 0.12, 0.34, 0.49, 0.5])
def test_a_swap_is_the_papers_whatever_the_size(size, beta):
    rng = np.random.default_rng((*size, int(100 * beta)))
    source, target = (rng.uniform(0, 1, (2, 3, *size)).astype(np.float32) for _ in range(2))
    ours = swap(torch.from_numpy(source), torch.from_numpy(target), beta).numpy()
    for b, c in np.ndindex(2, 3):
        np.testing.assert_allclose(ours[b, c], slow(source[b, c], target[b, c], beta), rtol=0, atol=2e-6)


def test_a_swap_of_the_mean_alone_by_hand():
    # 1 3 / 5 7 has the mean 4, the style the mean 10: each pixel gains 6, whatever the style's pattern.
    image, style = torch.tensor([[[[1.0, 3], [5, 7]]]]), torch.tensor([[[[0.0, 20], [20, 0]]]])
    torch.testing.assert_close(swap(image, style, 0.0), image + 6)


def test_a_wave_takes_the_styles_height_and_keeps_its_place():
    # cos at one period with amplitude 1 becomes one of amplitude 5 at the same place; that at three periods stays.
    x = torch.arange(16) * (2 * torch.pi / 16)
    wave = (0.5 + x.cos() + 0.25 * (3 * x).sin()).expand(1, 1, 16, 16)
    style = (2 + 5 * (x + 1).cos() + 7 * (3 * x).cos()).expand(1, 1, 16, 16)
    # Elsewhere in the window the waves have amplitudes of rounding alone: as much of that is moved.
    expected = (2 + 5 * x.cos() + 0.25 * (3 * x).sin()).expand(1, 1, 16, 16)
    torch.testing.assert_close(swap(wave, style, 0.1), expected, rtol=0, atol=1e-5)


def test_a_picture_without_amplitude_takes_the_styles_with_phase_0():
    style = torch.rand(1, 3, 6, 6)
    ours = swap(torch.zeros(1, 3, 6, 6), style, 0.5)
    assert ours.isfinite().all()
    expected = torch.fft.ifft2(torch.fft.fft2(style).abs().to(torch.complex64)).real
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_a_picture_in_its_own_style_stays():
    image = torch.rand(2, 3, 21, 34)
    torch.testing.assert_close(swap(image, image, 0.3), image, rtol=0, atol=1e-6)


def test_values_outside_the_range_of_pictures_are_kept():
    source, target = pictures("noise", "33x65")
    ours = swap(source, target, 0.2)
    assert ours.min() < -1 and ours.max() > 256 and (ours != ours.round()).any()


def test_pictures_of_two_sizes_are_refused():
    with pytest.raises(DataError, match="64x32.*48x32; give data.source.augment.crop"):
        swap(torch.rand(1, 3, 32, 64), torch.rand(1, 3, 32, 48), 0.1)


# Losses


def recorded_logits() -> Tensor:
    return torch.from_numpy(3 * GOLDEN.normal("fda.logits", (2, 19, 9, 17))).requires_grad_()


@pytest.mark.parametrize(("eta", "key"), [(2.0, ""), (1.5, "_ita15"), (0.5, "_ita05")])
def test_the_robust_entropy_equals_the_authors(eta, key):
    # They divide by 2.9444, we by ln 19: 1.3e-5 of e, so twice eta of that of the loss.
    rounded = (2.9444 / np.log(19)) ** (2 * eta)
    logits, values = recorded_logits(), GOLDEN.json("fda_losses.json")
    loss = robust_entropy(logits, eta)
    assert loss.item() == pytest.approx(values[f"entropy{key}_f32"] * rounded, rel=VALUE)
    if not key:
        assert loss.item() == pytest.approx(values["entropy_exact_ln19_f32"], rel=VALUE)
    loss.backward()
    gradient = GOLDEN.npz("fda_losses.npz")[f"entropy_grad{key}_f32"] * rounded
    np.testing.assert_allclose(logits.grad.numpy(), gradient, rtol=1e-4, atol=1e-8)


def test_the_robust_entropy_of_certain_uniform_and_two_way_pixels():
    recorded = GOLDEN.npz("fda_losses.npz")
    logits = torch.from_numpy(recorded["entropy_special_logits_f32"]).requires_grad_()
    loss = robust_entropy(logits, 2.0)
    loss.backward()
    rounded = (2.9444 / np.log(19)) ** 4
    assert loss.item() == pytest.approx(GOLDEN.json("fda_losses.json")["entropy_special_f32"] * rounded, rel=VALUE)
    assert logits.grad.isfinite().all()
    # By hand: e is 0, 1 and ln 2 / ln 19.
    two_way = (np.log(2) / np.log(19)) ** 2
    by_hand = np.mean([1e-8**2, (1 + 1e-8) ** 2, (two_way + 1e-8) ** 2])
    assert loss.item() == pytest.approx(by_hand, rel=1e-5)


def test_cross_entropy_after_upsampling_equals_the_authors():
    logits = recorded_logits()
    ignored = GOLDEN.integers("fda.label.ignore", 0, 1000, (2, 65, 129)) < 200
    label = np.where(ignored, IGNORE, GOLDEN.integers("fda.label", 0, 19, (2, 65, 129)))
    loss = cross_entropy(upsample(logits, (65, 129)), torch.from_numpy(label), over="valid", share=ALONE)
    loss.backward()
    assert loss.item() == pytest.approx(GOLDEN.json("fda_losses.json")["cross_entropy_f32"], rel=VALUE)
    np.testing.assert_allclose(
        logits.grad.numpy(), GOLDEN.npz("fda_losses.npz")["cross_entropy_grad_f32"], rtol=0, atol=MAPS
    )


# Labels of three networks


@pytest.mark.parametrize("weights", ["theirs", "equal"])
def test_labels_of_the_mean_of_three_networks_are_the_authors(weights):
    recorded, expected = GOLDEN.npz("fda_mbt.npz"), GOLDEN.json("fda_losses.json")["mbt"]
    # Theirs count 0.3333, 0.3333 and 0.3334; in a pseudo-label of ours all runs count the same.
    shares = GOLDEN.json("fda_losses.json")["ensemble_weights"] if weights == "theirs" else [1, 1, 1]
    atol = 1e-6 if weights == "theirs" else 1e-4
    rule = build(RULES, rule_spec("quantile"), "rule")
    images = []
    for counts in recorded["counts"].swapaxes(0, 1):
        logits = torch.from_numpy(counts / 32768).clamp_min(1e-30).log().float()  # an exp(-69) is no probability
        seen = [View(each[None], True, None, share, rule.softmax) for each, share in zip(logits, shares, strict=True)]
        label, score = most_probable(probabilities(seen, logits.shape[-2:]), "confidence")
        images.append((label.numpy(), score.numpy()))
    few = 0 if weights == "theirs" else 0.01
    assert (np.stack([label for label, _ in images]) != recorded["argmax"]).mean() <= few
    np.testing.assert_allclose(np.stack([score for _, score in images]), recorded["prob"], rtol=0, atol=atol)
    pixels, found = order_statistics(lambda: images, 19, lambda n: [rule.index(n)])
    thresholds = np.array([rule.threshold(float(score)) for score in found[:, 0]])
    assert weights == "equal" or pixels.tolist() == expected["pixels"]
    np.testing.assert_allclose(thresholds, expected["thresholds"], rtol=0, atol=atol)
    labels = np.stack([labels_kept(rule, label, score, thresholds) for label, score in images])
    assert (labels != recorded["labels"]).mean() <= few
