"""How often images are recoloured and blurred, and by how much: the draws against what the settings say of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segda.distributed.shares import Share
from segda.parts import photometric as module
from segda.parts.photometric import Blended, Photometric, Strengths, photometric

STEPS = 400
S = 0.2
SIGMA = (0.15, 1.15)


def kornia(jitter: float, blur: float) -> Photometric:
    return Photometric(jitter_prob=jitter, jitter_strength=S, blur_prob=blur, blur_sigma=SIGMA)


def torchvision(jitter: float, blur: float, grey: float = 0) -> Blended:
    strengths = Strengths(brightness=0.1, contrast=0.3, saturation=0.5, hue=0.05)
    sigma = SIGMA if blur else None
    return Blended(jitter_prob=jitter, jitter_strengths=strengths, grey_prob=grey, blur_prob=blur, blur_sigma=sigma)


@pytest.fixture
def drawn(monkeypatch):
    """What the operations are asked for: factors and order of each jitter, sigma of each blur."""
    told = {"jitter": [], "blur": []}

    def jitter(image, *factors):
        told["jitter"].append((*factors[:4], *factors[4]))
        return image

    def blur(image, sigma):
        told["blur"].append(sigma)
        return image

    monkeypatch.setattr(module, "colour_jitter", jitter)
    monkeypatch.setattr(module, "blended_jitter", jitter)
    monkeypatch.setattr(module, "gaussian_blur", blur)
    return told


def run(settings, steps: int = STEPS, images: int = 1, which="") -> None:
    for step in range(steps):
        photometric(torch.zeros(images, 3, 2, 2), settings, share=Share(seed=1, step=step), which=which)


def often(count: int, probability: float, of: int = STEPS) -> bool:
    """Whether it happened as often as a probability says, within four standard deviations; of 0 and 1 exactly."""
    return abs(count - probability * of) <= 4 * (probability * (1 - probability) * of) ** 0.5


def uniform(values, low: float, high: float) -> bool:
    """Kolmogorov's test: the greatest distance from the uniform distribution, at one in ten thousand."""
    ranks = (np.sort(values) - low) / (high - low)
    return np.abs(ranks - (np.arange(len(ranks)) + 0.5) / len(ranks)).max() < 2.2 / len(ranks) ** 0.5


@pytest.mark.parametrize("settings", [kornia, torchvision])
@pytest.mark.parametrize(("jitter", "blur"), [(0.8, 0.3), (0.3, 0.8), (1, 0), (0, 1)])
def test_jitter_and_blur_happen_as_often_as_their_probabilities_say(drawn, settings, jitter, blur):
    run(settings(jitter, blur))
    assert often(len(drawn["jitter"]), jitter) and often(len(drawn["blur"]), blur)


def test_images_become_grey_as_often_as_the_probability_says():
    image = torch.rand(STEPS, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    found = photometric(image, torchvision(0, 0, grey=0.2), share=Share(seed=1))
    assert often(sum(bool((one == one[:1]).all()) for one in found), 0.2)


@pytest.mark.parametrize("which", ["", "masked"])
def test_a_step_is_jittered_and_blurred_as_a_whole(drawn, which):
    run(kornia(0.5, 0.5), images=3, which=which)
    assert often(len(drawn["jitter"]) / 3, 0.5) and len(drawn["jitter"]) % 3 == 0
    assert often(len(drawn["blur"]) / 3, 0.5) and len(drawn["blur"]) % 3 == 0
    one_blur = [len(set(drawn["blur"][k : k + 3])) == 1 for k in range(0, len(drawn["blur"]), 3)]
    assert all(one_blur) if which == "masked" else not any(one_blur)


@pytest.mark.parametrize(
    ("settings", "ranges"),
    [
        (kornia, [(1 - S, 1 + S)] * 3 + [(-S, S)]),
        (torchvision, [(0.9, 1.1), (0.7, 1.3), (0.5, 1.5), (-0.05, 0.05)]),
    ],
)
def test_factors_and_widths_are_uniform_in_their_ranges_and_every_order_is_drawn(drawn, settings, ranges):
    run(settings(1, 1))
    factors = np.array(drawn["jitter"])
    for k, (low, high) in enumerate(ranges):
        assert uniform(factors[:, k], low, high), k
    assert uniform(drawn["blur"], *SIGMA)
    orders = factors[:, 4:].astype(int)
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert all(often((orders[:, place] == one).sum(), 0.25) for place in range(4) for one in range(4))
    together = np.corrcoef(np.column_stack((factors[:, :4], drawn["blur"])).T)
    assert np.abs(together - np.eye(5)).max() < 0.2, "one draw decides two things"
