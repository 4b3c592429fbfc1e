"""BDL on a network of two heads; its steps with one stand in tests/conformance/bdl_steps.py."""

from __future__ import annotations

import pytest
import torch

from segda.methods.bdl import BDL
from segda.networks import DeepLabV2
from segda.scene import Batch, Scene


def fooled(**weights: float) -> dict[str, float]:
    """Each head's adversarial term, of the same networks and images whatever the weights."""
    torch.manual_seed(0)
    student = DeepLabV2(("road", "car"), encoder="small", weights="scratch", multi_level=True, aux_weight=0.1)
    method = BDL(student, adversarial_weight=weights, width=4).eval()
    source, target = (torch.randint(256, (1, 3, 256, 256), dtype=torch.uint8) / 255 for _ in range(2))
    batch = Batch(Scene(source, torch.randint(2, (1, 256, 256))), Scene(target))
    terms = {name: term.detach() for event in method.step(batch, 0) for name, term in event.items()}
    return {head: float(terms[f"fool/{head}"]) for head in weights}


def test_each_heads_adversarial_term_has_its_own_weight():
    plain, weighed = fooled(main=1.0, aux=1.0), fooled(main=3.0, aux=0.5)
    assert weighed["main"] == pytest.approx(3 * plain["main"]) and weighed["aux"] == pytest.approx(0.5 * plain["aux"])
