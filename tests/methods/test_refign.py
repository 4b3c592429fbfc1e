"""Refign: how references refine labels, beside a plain count of it, and which steps have the reference alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

from reporting.test_tables import batch_of, method_named
from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.parts.refinement import refined
from segda.scene import Batch


def probabilities(seed: int, sharpness: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(2, 5, 3, 4, generator=generator)).softmax(1)


@pytest.mark.parametrize("gamma", [0.25, 1.0])
@pytest.mark.parametrize("certainty", [0.0, 0.5, 1.0])
def test_refinement_equals_a_loop_in_float64(gamma, certainty):
    target, reference = probabilities(0, 1.0), probabilities(1, 3.0)
    static = [True, False, True, False, False]
    ours = refined(target, reference, gamma=gamma, static=torch.tensor(static), certainty=certainty)
    for b in range(2):
        p, r = target[b].double().tolist(), reference[b].double().tolist()
        pixels = [(y, x) for y in range(3) for x in range(4)]
        unsure = sum(-p[c][y][x] * math.log(p[c][y][x]) for c in range(5) for y, x in pixels) / 12 / math.log(5)
        for y, x in pixels:
            first, second = (max(range(5), key=lambda c, q=q: q[c][y][x]) for q in (p, r))
            for c in range(5):
                alike = static[first] and static[second] and static[c]
                e = unsure**gamma * max(certainty, float(alike))
                assert ours[b, c, y, x] == pytest.approx((1 - e) * p[c][y][x] + e * r[c][y][x], abs=1e-6)


def test_a_target_that_is_certain_stays_as_it_is():
    target = torch.eye(4).T[None, :, :, None].expand(2, 4, 4, 3)
    reference = target.flip(1)
    static = torch.ones(4, dtype=torch.bool)
    assert refined(target, reference, gamma=0.25, static=static, certainty=1.0).equal(target)


@dataclass(frozen=True)
class Coin(Share):
    """Says for sure whether the reference is alone."""

    side: float = 0.0

    def rng(self, purpose: str, scene: int | None = None):
        return self if purpose == "reference alone" else Share.rng(self, purpose, scene)

    def random(self) -> float:
        return self.side


def stepped(side: float, **settings) -> tuple[list[torch.Tensor], Batch, list[dict]]:
    """What the teacher saw of a step's images, the batch, and what was logged."""
    method, batch = method_named("refign", **settings), batch_of(1, "refign").replace(share=Coin(step=1, side=side))
    seen: list[torch.Tensor] = []
    method.parts.teacher.register_forward_hook(lambda teacher, images, logits: seen.append(images[0]))
    return seen, batch, list(method.step(batch, 1))


def test_the_teacher_sees_the_reference_alone_or_both():
    seen, batch, logged = stepped(0.49)
    assert len(seen) == 1 and seen[0].equal(batch.reference.image) and logged[1]["changed"] == 0
    seen, batch, logged = stepped(0.51)
    assert len(seen) == 1 and seen[0].equal(torch.cat([batch.target.image, batch.reference.image]))
    assert 0 < logged[1]["changed"] < 1


def test_the_student_learns_from_the_images_whose_labels_it_has():
    """Where nothing of the source is pasted, and no colours change, it sees the target, or the reference."""
    plain = {"jitter_prob": 0, "jitter_strength": 0.2, "blur_prob": 0, "blur_sigma": [0.15, 1.15]}
    for side, name in ((0.0, "reference"), (1.0, "target")):
        method, batch = method_named("refign", photometric=plain), batch_of(1, "refign")
        batch = batch.replace(share=Coin(step=1, side=side))
        seen: list[torch.Tensor] = []
        method.student.register_forward_hook(lambda student, images, output, seen=seen: seen.append(images[0]))
        list(method.step(batch, 1))
        mixed, image = seen[1], getattr(batch, name).image
        assert ((mixed == image) | (mixed == batch.source.image)).all() and (mixed == image).any()


def test_half_of_the_steps_have_the_reference_alone():
    alone = sum(Share(seed=5, step=t).rng("reference alone").random() < 0.5 for t in range(400))
    assert 160 < alone < 240


def test_labels_of_a_certain_reference_are_the_targets_where_the_target_is_unsure():
    """A target at a loss everywhere, s = 1, takes a reference of certainty 1 as it is."""
    target = torch.full((1, 5, 3, 4), 0.2)
    reference = probabilities(2, 3.0)[:1]
    ours = refined(target, reference, gamma=0.25, static=torch.zeros(5, dtype=torch.bool), certainty=1.0)
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"gamma": 0}, "method.gamma: 0 is not above 0"),
        ({"certainty": 1.5}, "method.certainty: 1.5 is not in [0, 1]"),
        ({"reference_alone": -0.1}, "method.reference_alone: -0.1 is not in [0, 1]"),
        ({"static": ["raod"]}, "method.static: no class 'raod'; did you mean 'road'?"),
    ],
)
def test_settings_without_a_meaning_are_refused(wrong, said):
    with pytest.raises(RecipeError) as refused:
        method_named("refign", **wrong)
    assert said in str(refused.value)
