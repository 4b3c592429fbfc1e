"""What self-training methods hold in common: which images the features that are held are of."""

from __future__ import annotations

import pytest
import torch

from conftest import FEATURE_DISTANCE, PHOTOMETRIC
from reporting.test_tables import batch_of, method_named


@pytest.mark.parametrize("name", ["daformer", "ebda", "mic", "refign"])
def test_held_features_are_of_the_images_that_the_student_sees(name):
    """Also where the source is recoloured: its colours are no reason to move."""
    settings = {"source_photometric": PHOTOMETRIC | {"jitter_prob": 1.0}, "feature_distance": FEATURE_DISTANCE}
    method, batch = method_named(name, **settings), batch_of(0, name)
    seen, start = [], []
    method.student.register_forward_hook(lambda student, images, output: seen.append(images[0]))
    encoder = method.parts.feature_distance.network.encoder
    encoder.register_forward_hook(lambda encoder, images, levels: start.append(images[0]))
    next(method.step(batch, 0))
    (image,), (held,) = seen, start
    assert not torch.equal(image, batch.source.image)
    network = method.parts.feature_distance.network
    torch.testing.assert_close(held, (image - network.mean) / network.deviation)
