"""Refign's refinement against values recorded from the authors' code (golden/modern)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from conformance.masking import GOLDEN
from segda.parts.refinement import refined

RECORDED = GOLDEN.json("refign.json")
LOUD = (0, 1, 2, 8, 10)
"""Classes whose logits were raised by 2."""
STATIC = torch.tensor([c in (0, 1, 2, 3, 4, 8, 9, 10) for c in range(19)])


def probabilities(name: str, factor: float) -> torch.Tensor:
    logits = factor * torch.from_numpy(GOLDEN.normal(f"refign/{name}", tuple(RECORDED["shape"])))
    logits[:, LOUD] += 2
    return logits.softmax(1)


@pytest.mark.parametrize("name", RECORDED["variants"])
def test_refined_probabilities_equal_the_authors(name):
    """All five variants: of the published one without the matcher, 0.5 stands for its certainty everywhere."""
    recorded, arrays = RECORDED["variants"][name], GOLDEN.npz("refign.npz")
    target, reference = probabilities("target", 2), probabilities("reference", 4)
    known = recorded["flow"] and not recorded["disable_P"]
    ours = refined(
        target,
        reference,
        gamma=recorded["gamma"],
        static=STATIC & (not recorded["disable_M"]),
        certainty=torch.from_numpy(arrays["certainty"]) if known else 0.5,
    )
    if recorded["flow"]:  # where the matcher found nothing, the target stays
        ours = torch.where(torch.from_numpy(arrays["match"])[:, None], ours, target)
    np.testing.assert_allclose(ours.numpy(), arrays[name], rtol=0, atol=2e-6)
    assert (ours.argmax(1) != target.argmax(1)).sum() == recorded["labels_changed"]
    assert (ours.sum(1) - 1).abs().max().item() == pytest.approx(recorded["sums_to_one_max_error"], abs=2e-6)
