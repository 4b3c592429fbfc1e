"""MGCDA's step: what the student sees of the source, and which pixels its loss is the mean of."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from conftest import PHOTOMETRIC
from reporting.test_tables import batch_of, method_named
from segda.parts.photometric import Photometric, photometric
from segda.scene import IGNORE


@pytest.mark.parametrize("colours", [None, PHOTOMETRIC | {"jitter_prob": 1.0}])
def test_the_source_is_learnt_as_it_is_recoloured_over_its_labelled_pixels(colours):
    method, batch = method_named("mgcda", photometric=colours), batch_of(3)
    seen = []
    method.student.register_forward_hook(lambda student, images, output: seen.append((images[0], output.logits)))
    (terms,) = method.step(batch, 0)
    ((image, logits),) = seen
    theirs = batch.source.image
    if colours is not None:
        theirs = photometric(theirs, Photometric.model_validate(colours), share=batch.share)
        assert not torch.equal(theirs, batch.source.image)
    assert torch.equal(image, theirs)
    assert (batch.source.label == IGNORE).any()
    expected = F.cross_entropy(logits.double(), batch.source.label, ignore_index=IGNORE)
    assert terms["source"].item() == pytest.approx(expected.item(), rel=1e-5)
