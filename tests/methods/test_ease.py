"""EASE's step: its balance, and the running medians that choose what is learnt."""

from __future__ import annotations

import pytest
import torch

from reporting.test_tables import batch_of, method_named


def test_the_balance_pulls_the_mixs_entropy_by_its_weight():
    method = method_named("ease", balance={"weight": 0.3, "level": 0.4})
    seen = []
    method.student.register_forward_hook(lambda student, images, output: seen.append(output.logits))
    terms = {name: term for event in method.step(batch_of(0, "ease"), 0) for name, term in event.items()}
    _, mixed = seen
    log_prob = mixed.double().log_softmax(1)
    unsure = -(log_prob.exp() * log_prob).sum(1)
    assert terms["balance"].item() == pytest.approx(0.3 * (unsure - 0.4).square().mean().item(), rel=1e-5)


@torch.no_grad()
def test_medians_run_with_its_momentum():
    levels = {}
    for momentum in (0.0, 0.75):
        method = method_named("ease", momentum=momentum)
        selection = method.parts.select
        levels[momentum] = []
        for t in range(2):  # what the teacher says of two images
            method.parts.labelled(batch_of(t, "ease"))
            levels[momentum].append(selection.level.clone())
        both = selection.begun & (levels[momentum][0] > 0)
    plain, running = levels[0.0], levels[0.75]
    assert both.any() and torch.equal(plain[0], running[0]) and not torch.equal(plain[0], plain[1])
    torch.testing.assert_close(running[1][both], (0.75 * plain[0] + 0.25 * plain[1])[both])
