"""Light losses against plain loops, and at sizes that the authors never had."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segda.parts.light import dissimilarity, exposure, variation


def picture(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_variation_sums_squared_differences_over_channels_and_divides_by_pixels():
    light = picture(2, 3, 4, 5)
    down = across = 0.0
    for b, c, y, x in np.ndindex(2, 3, 4, 5):
        down += 0 if y == 3 else (light[b, c, y + 1, x] - light[b, c, y, x]).item() ** 2
        across += 0 if x == 4 else (light[b, c, y, x + 1] - light[b, c, y, x]).item() ** 2
    assert variation(light).item() == pytest.approx(2 * (down / (3 * 5) + across / (4 * 4)) / 2)


@pytest.mark.parametrize("shape", [(1, 3, 1, 5), (1, 3, 5, 1), (1, 3, 1, 1)])
def test_variation_along_a_side_of_one_pixel_is_nothing(shape):
    light = picture(*shape)
    line = light.flatten(2)
    expected = 2 * (line[..., 1:] - line[..., :-1]).square().sum() / max(1, line.shape[-1] - 1)
    assert variation(light).item() == pytest.approx(expected.item())


def test_dissimilarity_is_the_mean_over_three_by_three_pixels_reflected_at_the_border():
    one, other = picture(1, 1, 4, 5), picture(1, 1, 4, 5, seed=1)
    a, b = (np.pad(image[0, 0].numpy(), 1, mode="reflect") for image in (one, other))
    total = 0.0
    for y, x in np.ndindex(4, 5):
        p, q = a[y : y + 3, x : x + 3], b[y : y + 3, x : x + 3]
        together = (p * q).mean() - p.mean() * q.mean()
        above = (2 * p.mean() * q.mean() + 1e-4) * (2 * together + 9e-4)
        below = (p.mean() ** 2 + q.mean() ** 2 + 1e-4) * (p.var() + q.var() + 9e-4)
        total += min(max((1 - above / below) / 2, 0), 1)
    assert dissimilarity(one, other).item() == pytest.approx(total / 20)
    assert dissimilarity(one, one).item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("size", "patches"), [((70, 40), [(0, 0), (32, 0)]), ((33, 32), [(0, 0)])])
def test_exposure_is_of_whole_patches_alone(size, patches):
    image = picture(1, 3, *size)
    means = [image[:, :, y : y + 32, x : x + 32].mean().item() for y, x in patches]
    assert exposure(image, 0.3).item() == pytest.approx(np.mean([(mean - 0.3) ** 2 for mean in means]))


def test_an_image_smaller_than_a_patch_is_one():
    image = picture(1, 3, 20, 64)
    halves = [half.mean().item() for half in image.chunk(2, dim=-1)]
    assert exposure(image, 0.0).item() == pytest.approx(np.mean([mean**2 for mean in halves]))
    assert exposure(picture(1, 3, 5, 7), 0.0).isfinite()
