"""The colours of one image given to another: by hand, against numpy in float64, and in the mix of self-training."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conftest import PHOTOMETRIC
from reporting.test_tables import batch_of, method_named
from segda.parts.colour_transfer import with_colours_of

STILL = PHOTOMETRIC | {"jitter_prob": 0.0, "blur_prob": 0.0}


def image(*values: float) -> torch.Tensor:
    """A row of grey pixels."""
    return torch.tensor(values).expand(1, 3, 1, -1)


def test_by_hand():
    # Means 0.4 and 0.6, spreads 0.2 and 0.1: half the contrast, around 0.6.
    found = with_colours_of(image(0.2, 0.6), image(0.5, 0.7))
    torch.testing.assert_close(found, image(0.5, 0.7))
    found = with_colours_of(image(0.1, 0.3, 0.5, 0.7), image(0.4, 0.6))
    spread = 0.05**0.5
    torch.testing.assert_close(found, image(*(0.5 + x / spread * 0.1 for x in (-0.3, -0.1, 0.1, 0.3))))


def test_what_leaves_the_range_is_cut():
    found = with_colours_of(image(0.0, 0.0, 0.0, 1.0), image(0.0, 1.0))
    # Mean 0.25, spread 0.433: three pixels come to 0.5 - 0.289, the fourth to 0.5 + 0.866.
    torch.testing.assert_close(found, image(0.211325, 0.211325, 0.211325, 1.0))


def test_a_plain_image_takes_the_mean_and_its_noise_is_no_contrast():
    torch.testing.assert_close(with_colours_of(image(0.3, 0.3), image(0.2, 0.8)), image(0.5, 0.5))
    faint = with_colours_of(image(0.3, 0.3 + 1e-4), image(0.2, 0.8))
    assert (faint - 0.5).abs().max() < 0.01


def test_each_image_and_channel_by_itself_whatever_the_size():
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(0.2, 0.9, (3, 3, 9, 14)), rng.uniform(0, 0.5, (3, 3, 6, 5))
    twin = np.empty_like(ours)
    for b in range(3):
        for c in range(3):
            one, other = ours[b, c], theirs[b, c]
            twin[b, c] = np.clip((one - one.mean()) / one.std() * other.std() + other.mean(), 0, 1)
    found = with_colours_of(*(torch.from_numpy(part.astype(np.float32)) for part in (ours, theirs)))
    np.testing.assert_allclose(found.numpy(), twin, atol=1e-6)


@pytest.mark.parametrize("name", ["dacs", "daformer", "ease"])
def test_pasted_pixels_have_the_targets_colours_and_no_others_change(name):
    """As if the source of the mix had been painted before; its own pass sees it as it is."""

    def seen(batch, **settings):
        method, images = method_named(name, photometric=STILL, source_photometric=None, begin=0, **settings), []
        method.student.register_forward_hook(lambda student, given, output: images.append(given[0].clone()))
        list(method.step(batch, 0))
        return images

    batch = batch_of(0, name)
    painted = batch.source.replace(image=with_colours_of(batch.source.image, batch.target.image))
    source, mixed = seen(batch, paste_colours="target")
    assert torch.equal(source, batch.source.image)
    assert torch.equal(mixed, seen(batch.replace(source=painted))[1])
    assert not torch.equal(mixed, seen(batch)[1])
