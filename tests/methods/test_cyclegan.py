from __future__ import annotations

import pytest
import torch

from conftest import METHOD_SETTINGS
from reporting.test_tables import batch_of, trained
from segda.distributed.shares import Share
from segda.errors import DataError, RecipeError
from segda.methods import METHODS
from segda.methods.cyclegan import CycleGAN
from segda.methods.method import Update
from segda.recipes.build import build
from segda.scene import Batch, Scene


def cyclegan(**changes) -> CycleGAN:
    torch.manual_seed(0)
    return build(METHODS, {"name": "cyclegan", **METHOD_SETTINGS["cyclegan"], **changes}, "method").train()


def test_generators_step_before_the_discriminators_judge_what_they_painted_before():
    method = cyclegan()
    batch = batch_of(0, "cyclegan")
    events = method.step(batch, 0)
    terms = next(events)
    with torch.no_grad():
        before = method.generators["target"](2 * batch.source.image - 1)
    assert {name.partition("/")[0] for name in terms} == {"style", "cycle", "identity"}
    assert next(events) == Update("generators")
    with torch.no_grad():
        for weight in method.generators.parameters():
            weight.add_(0.1)
    judged = next(events)
    shown = method.discriminators["target"](before)
    real = method.discriminators["target"](2 * batch.target.image - 1)
    expected = ((real - 1).square().mean() + shown.square().mean()) / 2
    assert judged["judge/target"].item() == pytest.approx(expected.item(), rel=1e-5)


class Older(torch.nn.Module):
    """In the place of a pool: gives back other images than come."""

    def forward(self, painted: torch.Tensor, share: Share, purpose: str) -> torch.Tensor:
        return painted.flip(-1) / 2


def test_discriminators_judge_what_the_pools_give_back():
    method, batch = cyclegan(), batch_of(0, "cyclegan")
    method.pools = torch.nn.ModuleDict({"source": Older(), "target": Older()})
    terms = {name: term for event in method.step(batch, 0) if isinstance(event, dict) for name, term in event.items()}
    for domain, other in (("target", "source"), ("source", "target")):
        images = {name: 2 * getattr(batch, name).image - 1 for name in (domain, other)}
        with torch.no_grad():
            shown = method.generators[domain](images[other]).flip(-1) / 2
            judge = method.discriminators[domain]
            expected = ((judge(images[domain]) - 1).square().mean() + judge(shown).square().mean()) / 2
        assert terms[f"judge/{domain}"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_without_a_term_the_others_are_what_they_were():
    ours, all_terms = (next(cyclegan(**changes).step(batch_of(0), 0)) for changes in ({"identity_weight": 0}, {}))
    assert not [name for name in ours if name.startswith("identity")]
    assert all(torch.equal(ours[name], all_terms[name]) for name in ours)


def test_a_pool_of_none_is_no_pool():
    logs = trained(cyclegan(pool=0), range(2))
    assert all(0 < log["judge/target"] < 10 for log in logs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "method.width: 0 is below 1"),
        ({"judge_width": -1}, "method.judge_width: -1 is below 1"),
        ({"blocks": -1}, "method.blocks: -1 is below 0"),
        ({"pool": -5}, "method.pool: -5 is below 0"),
        ({"cycle_weight": -1.0}, "method.cycle_weight: -1.0 is below 0"),
        ({"perceptual_weight": 0.1}, r"given: \{perceptual: RUN\}; without one, set both to 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        cyclegan(**changes)


def test_sides_that_are_no_multiples_of_4_are_refused_with_the_way_out():
    scene = Scene(torch.rand(1, 3, 30, 32))
    with pytest.raises(DataError, match=r"image of 30 x 32 pixels .* multiples of 4; set the crops"):
        next(cyclegan().step(Batch(scene, scene, share=Share()), 0))
