"""Masked passes: what the student is shown and what it is asked, beside a plain count of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conftest import METHOD_SETTINGS, SELF_TRAINING, small_recipe
from reporting.test_tables import batch_of, method_named
from segda.commands.train import train
from segda.errors import RecipeError
from segda.methods import METHODS
from segda.methods.method import Method
from segda.networks.network import Head, Output
from segda.parts.masking import block_masks, weighed
from segda.scene import IGNORE, Batch

MASKING = {"mode": "target", "block": 16, "ratio": 0.5, "weight": 0.5, "augment": False}

PLAIN = {"jitter_prob": 0, "jitter_strength": 0.2, "blur_prob": 0, "blur_sigma": [0.15, 1.15]}


def passes(network: str = "mit_daformer", **masking) -> tuple[Method, Batch, list, list]:
    """MIC after one step: the method, its batch, what its student saw, and what it logged."""
    # All pixels count: at a network's first step no pixel is as sure as a threshold, and the loss would be 0.
    method = method_named("mic", network, masking=MASKING | masking, photometric=PLAIN, threshold=0)
    seen = []
    method.student.register_forward_hook(lambda student, images, output: seen.append((images[0], output)))
    batch = batch_of(0, "mic").to("cpu")
    return method, batch, seen, list(method.step(batch, 0))


def cross_entropy(output, label, weight) -> float:
    """Over all pixels, in float64."""
    losses = F.cross_entropy(output.logits.double(), label, ignore_index=IGNORE, reduction="none")
    return (losses * weight).mean().item()


def test_the_target_is_masked_with_the_mean_colour_and_must_still_be_told_whole():
    method, batch, seen, terms = passes()
    image, output = seen[-1]
    assert len(seen) == len(terms) == 3
    kept = block_masks(image, 16, 0.5, batch.share)
    assert 0.2 < kept.float().mean() < 0.8 and (kept[0] != kept[1]).any()
    fill = torch.tensor(method.student.fill).view(3, 1, 1)
    assert torch.equal(image, torch.where(kept, batch.target.image, fill))
    # The teacher of step 0 is the student; it is asked once, and its batch norm is that of the target.
    pseudo, _ = method.parts.labelled(batch)
    expected = 0.5 * cross_entropy(output, pseudo.label, pseudo.weight)
    assert terms[-1]["masked"].item() == pytest.approx(expected, rel=1e-5)


def test_the_second_mask_is_what_the_first_one_is_not():
    method, batch, seen, terms = passes(masks=2, balance={"weight": 0.1, "level": 0.4})
    (first, one), (second, other) = seen[-2:]
    target, fill = batch.target.image, torch.tensor(method.student.fill).view(3, 1, 1)
    assert torch.allclose(first + second - fill, target, atol=1e-6) and not torch.equal(first, target)
    pseudo, _ = method.parts.labelled(batch)
    for name, output, given in (("masked", one, terms[-2]), ("masked_rest", other, terms[-1])):
        expected = 0.5 * cross_entropy(output, pseudo.label, pseudo.weight) / 2
        assert given[name].item() == pytest.approx(expected, rel=1e-5)
        log_prob = output.logits.double().log_softmax(1)
        unsure = -(log_prob.exp() * log_prob).sum(1)
        assert given[f"{name}_balance"].item() == pytest.approx(0.1 * ((unsure - 0.4) ** 2).mean().item() / 2, rel=1e-5)


def test_of_source_and_target_each_first_of_two_is_masked():
    _, batch, seen, _ = passes(mode="both", ratio=0.0)
    assert torch.equal(seen[-1][0], torch.stack((batch.source.image[0], batch.target.image[0])))
    _, batch, seen, terms = passes(mode="source", ratio=0.0)
    assert torch.equal(seen[-1][0], batch.source.image)
    output, label = seen[-1][1], batch.source.label
    assert terms[-1]["masked"].item() == pytest.approx(0.5 * cross_entropy(output, label, 1.0), rel=1e-5)


def test_the_weight_is_of_the_main_head_alone_as_in_the_authors_code():
    method, batch, seen, terms = passes("deeplab_v2")
    output = seen[-1][1]
    pseudo, _ = method.parts.labelled(batch)
    head = output.heads["aux"]
    aux = F.cross_entropy(head.logits.double(), pseudo.label, ignore_index=IGNORE, reduction="none") * pseudo.weight
    expected = 0.5 * cross_entropy(output, pseudo.label, pseudo.weight) + head.weight * aux.mean().item()
    assert terms[-1]["masked"].item() == pytest.approx(expected, rel=1e-5)


def test_the_weight_multiplies_the_main_heads_share_of_the_loss():
    shares = {"main": 0.9, "detail": 0.1}
    heads = {name: Head(torch.zeros(1, 2, 1, 1), share) for name, share in shares.items()}
    ours = weighed(Output(heads, []), 0.5)
    assert {name: head.weight for name, head in ours.heads.items()} == {"main": 0.45, "detail": 0.1}


@pytest.mark.parametrize("name", ["mic", "ebda", "ease"])
def test_methods_that_mix_can_be_masked(name, camvid, tmp_path):
    masking = {"mode": "target", "block": 8, "ratio": 0.7, "weight": 1.0, "augment": True}
    recipe = small_recipe(camvid, name, masking=masking)
    train(recipe.override("steps=2", "evaluate.data=[]"), tmp_path / "run")


def test_a_mask_of_its_own_is_drawn_for_each_scene_whichever_share_it_is_in():
    image = torch.zeros(4, 3, 64, 64)
    share = batch_of(0, "mic").share
    whole = block_masks(image, 8, 0.7, share)
    later = block_masks(image[:2], 8, 0.7, type(share)(share.seed, share.step, share.first_scene + 2, 2))
    assert torch.equal(whole[2:], later)
    assert abs(whole.float().mean().item() - 0.3) < 0.1
    assert np.unique(whole.flatten(1).numpy(), axis=0).shape[0] == 4


@pytest.mark.parametrize(
    ("masking", "changes", "message"),
    [
        (
            {"block": 64},
            (),
            r"masking\.block: 64 is too large for crops of 32 x 32 pixels .*; give at most 63, or larger",
        ),
        ({"block": 0}, (), r"masking: block: Input should be greater than or equal to 1"),
        ({"ratio": 1.0}, (), r"masking: ratio: Input should be less than 1"),
        ({"masks": 3}, (), r"masking: masks: Input should be 1 or 2"),
        ({"mode": "both"}, ("data.batch=3",), r"data\.batch: 3 is odd, but method\.masking\.mode: both .* even"),
        (
            {"mode": "source", "teacher": {"decay": 0.9, "threshold": None}},
            (),
            r"masking\.teacher has no effect with mode: source; remove it",
        ),
    ],
)
def test_masks_that_cannot_be_are_refused_at_once(masking, changes, message, camvid, tmp_path):
    # Also where self-training begins later.
    with pytest.raises(RecipeError, match=message) as caught:
        recipe = small_recipe(camvid, "mic", masking={**MASKING, "block": 8, **masking}, begin=2)
        train(recipe.override(*changes), tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_dacs_and_daformer_have_no_masks_of_their_own(camvid):
    with pytest.raises(RecipeError, match="method dacs has no setting 'masking'"):
        small_recipe(camvid, "dacs", masking=MASKING)
    assert METHOD_SETTINGS["mic"].keys() - {"masking"} == SELF_TRAINING.keys() | {"feature_distance"}
    assert "mic" in METHODS
