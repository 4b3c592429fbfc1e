"""Shares of a step: micro-batches that take turns, what they draw, what the parts of a method ask of all of them."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from segda.data.stream.stream import PART, SOURCE, TARGET
from segda.distributed.shares import ALONE, Share, Turns
from segda.errors import DataError, RunFailure
from segda.networks.dropout import ChannelDropout, DropPath, number_scenes
from segda.parts.entropy import Level
from segda.parts.losses import cross_entropy
from segda.parts.mixing import paste_mask
from segda.parts.photometric import Photometric, photometric
from segda.parts.pseudo import confident_fraction
from segda.scene import IGNORE, Batch, Scene
from segda.training.step import counted


def micro_batches(work, count=3, seed=lambda: torch.manual_seed(5), scenes=1):
    """What `work` makes of each share of a step with so many micro-batches, of so many scenes."""
    return Turns(count, seed).run(lambda turn: work(Share(first_scene=turn.number * scenes, count=count).taking(turn)))


def test_alone_there_is_one_share_of_everything():
    value = torch.rand(2, 3)
    assert (ALONE.count, ALONE.first_scene, ALONE.first) == (1, 0, True)
    assert ALONE.mean(value) is value and ALONE.concatenated(value) is value


def test_micro_batches_have_numbers_and_one_is_first():
    found = micro_batches(lambda share: (share.turn.number, share.count, share.first_scene, share.first))
    assert found == [(0, 3, 0, True), (1, 3, 1, False), (2, 3, 2, False)]


def test_one_micro_batch_runs_at_a_time_and_they_meet_in_their_order():
    told = []

    def work(share):
        i = share.turn.number
        told.append(("before", i))
        found = share.concatenated(torch.tensor([10 * i, 10 * i + 1]))
        told.append(("between", i))
        mean = share.mean(torch.tensor(float(i)))
        told.append(("after", i))
        return found.tolist(), mean.item()

    assert micro_batches(work) == [([0, 1, 10, 11, 20, 21], 1.0)] * 3
    assert told == [(when, i) for when in ("before", "between", "after") for i in range(3)]


def test_it_is_told_which_micro_batch_begins_or_goes_on():
    told = []

    def work(turn):
        told.append("works")
        turn.meet(torch.tensor(0), sum)
        told.append("works")

    Turns(2, lambda: None, told.append).run(work)
    assert told == [0, "works", 1, "works", 0, "works", 1, "works"]


def test_each_micro_batch_has_torchs_random_state_to_itself():
    def work(share):
        first = torch.rand(4)
        share.mean(torch.tensor(0.0))
        return torch.cat([first, torch.rand(4)])

    torch.manual_seed(5)
    expected = torch.rand(8)
    for found in micro_batches(work):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("after_a_meeting", [False, True])
def test_an_error_of_one_micro_batch_ends_all_and_leaves_no_thread(at, after_a_meeting):
    ended = []

    def work(share):
        i = share.turn.number
        try:
            if i == at and not after_a_meeting:
                raise RunFailure("broken")
            share.mean(torch.tensor(0.0))
            if i == at:
                raise RunFailure("broken")
            share.mean(torch.tensor(0.0))
        finally:
            ended.append(i)

    before = set(threading.enumerate())  # others' threads live on
    with pytest.raises(RunFailure, match="broken"):
        micro_batches(work)
    assert set(threading.enumerate()) <= before
    # Those that had begun were unwound; the others never began.
    assert at in ended and sorted(set(ended)) == sorted(ended)


def test_gradients_of_micro_batches_add_up_where_the_weights_are():
    weight = torch.ones(2, requires_grad=True)

    def work(share):
        (weight.sum() * (share.turn.number + 1)).backward()

    micro_batches(work)
    assert weight.grad.tolist() == [6.0, 6.0]


# Random numbers


def drawn(share: Share, purpose: str, scene: int | None = None) -> int:
    return int(share.rng(purpose, scene).integers(0, 2**60))


def test_a_scene_draws_the_same_whichever_share_it_is_in():
    whole, second = Share(seed=3, step=7), Share(seed=3, step=7, first_scene=2, count=2)
    assert drawn(whole, "gate") == drawn(second, "gate")
    for scene in range(2):
        assert drawn(whole, "amount", scene=2 + scene) == drawn(second, "amount", scene=scene)


def test_a_draw_is_a_function_of_seed_step_purpose_and_scene():
    shares = [Share(seed, step) for seed in range(3) for step in range(3)]
    asked = [(share, purpose, scene) for share in shares for purpose in ("a", "b") for scene in (None, 0, 1, 2)]
    found = [drawn(*one) for one in asked]
    assert found == [drawn(*one) for one in asked] and len(set(found)) == len(asked)


def test_a_step_draws_other_numbers_than_the_stream():
    ours = {drawn(Share(seed=3, step=0), "mix", scene) for scene in (None, 0, 1)}
    theirs = {
        int(np.random.default_rng((3, stream, n)).integers(0, 2**60)) for stream in (SOURCE, TARGET, PART)
        for n in range(50)
    }  # fmt: skip
    assert not ours & theirs


# What parts ask, against the same done to all scenes at once.

COUNT = 3


def shared(work, *tensors):
    """What `work` makes of each share of the tensors, side by side."""
    parts = [tensor.chunk(COUNT) for tensor in tensors]
    return micro_batches(
        lambda share: work(*(part[share.turn.number] for part in parts), share), COUNT, scenes=len(parts[0][0])
    )


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 5, 8, 8, generator=torch.Generator().manual_seed(1)) * 3


@pytest.fixture
def label() -> torch.Tensor:
    found = torch.randint(0, 5, (6, 8, 8), generator=torch.Generator().manual_seed(2))
    found[0], found[1, :6], found[4, :, 3:] = IGNORE, IGNORE, IGNORE  # as unevenly as can be
    return found


@pytest.mark.parametrize("over", ["valid", "all"])
@pytest.mark.parametrize("known", [False, True])
def test_the_mean_of_the_shares_losses_is_the_loss(over, known, logits, label):
    mean = float((label != IGNORE).sum()) / COUNT if known else None
    ours = shared(lambda x, y, share: cross_entropy(x, y, over=over, share=share, labelled=mean), logits, label)
    torch.testing.assert_close(torch.stack(ours).mean(), cross_entropy(logits, label, over=over, share=ALONE))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("pixels", [0, 1])
def test_a_share_may_have_no_labelled_pixel_and_all_of_them_one_or_none(known, pixels, logits):
    label = torch.full((6, 8, 8), IGNORE)
    label[5, 0, :pixels] = 2
    mean = pixels / COUNT if known else None
    ours = torch.stack(
        shared(lambda x, y, share: cross_entropy(x, y, over="valid", share=share, labelled=mean), logits, label)
    )
    torch.testing.assert_close(ours.mean(), cross_entropy(logits, label, over="valid", share=ALONE))
    assert (ours == 0).sum() == COUNT - pixels


def test_the_confident_share_is_that_of_all_scenes(logits):
    target = Scene(torch.zeros(6, 3, 8, 8))
    whole = confident_fraction(logits, target, 0.9, share=ALONE)
    ours = shared(lambda x, share: confident_fraction(x, target, 0.9, share=share), logits)
    assert 0 < whole.weight.max() < 1
    for i, each in enumerate(ours):
        torch.testing.assert_close(each.weight, whole.weight[2 * i : 2 * i + 2])
        assert torch.equal(each.label, whole.label[2 * i : 2 * i + 2])


@pytest.mark.parametrize(("statistic", "quantile"), [("mean", None), ("quantile", 0.6)])
def test_a_running_level_takes_in_all_scenes_once_a_step(statistic, quantile, logits):
    whole, ours = (Level("auto", statistic, quantile, 0.7) for _ in range(2))
    for step in range(3):
        unsure = logits[:, 0].abs() + step
        expected = whole.follow(unsure, ALONE)
        for found in shared(ours.follow, unsure):
            torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.value, whole.value)


@pytest.mark.parametrize("classes_of", ["batch", "image"])
def test_each_share_pastes_its_part_of_what_is_drawn_for_all(classes_of, label):
    whole = paste_mask(Scene(label[:, None], label), classes_of, ALONE)
    ours = shared(lambda y, share: paste_mask(Scene(y[:, None], y), classes_of, share), label)
    assert torch.equal(torch.cat(ours), whole) and whole.any() and not whole.all()


def test_each_share_is_recoloured_by_its_part_of_what_is_drawn_for_all():
    image = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    settings = Photometric(jitter_prob=1, jitter_strength=0.3, blur_prob=1, blur_sigma=(0.2, 1))
    whole = photometric(image, settings, share=ALONE)
    ours = shared(lambda x, share: photometric(x, settings, share=share), image)
    assert torch.equal(torch.cat(ours), whole) and not torch.equal(whole, image)


@pytest.mark.parametrize("dropout", [DropPath(0.4), ChannelDropout(0.4)], ids=["path", "channel"])
def test_each_share_drops_its_part_of_what_is_drawn_for_all(dropout):
    maps = torch.ones(6, 7, 4, 4)
    torch.manual_seed(5)
    whole = dropout(maps)
    first_scene = number_scenes(dropout)
    turns = Turns(COUNT, lambda: torch.manual_seed(5), lambda number: first_scene(2 * number))
    ours = turns.run(lambda turn: dropout(maps[:2]))
    assert torch.equal(torch.cat(ours), whole) and (whole == 0).any() and (whole > 1).any()


@pytest.mark.parametrize(("sizes", "domain"), [(((8, 8), (8, 9)), "target"), (((9, 8), (8, 8)), "source")])
def test_shares_of_different_sizes_are_refused(sizes, domain):
    first = Scene(torch.zeros(1, 3, 8, 8)), Scene(torch.zeros(1, 3, 8, 8))
    second = tuple(Scene(torch.zeros(1, 3, *size)) for size in sizes)
    with pytest.raises(
        DataError, match=rf"{domain} images of one step differ in size \(8x8, .*\); give data\.{domain}\.augment\.crop"
    ):
        counted([Batch(*first), Batch(*second)])


def test_the_labelled_pixels_of_a_step_are_counted_for_all_its_shares(label):
    scenes = [Scene(torch.zeros(2, 3, 8, 8), part) for part in label.chunk(COUNT)]
    made = counted([Batch(scene, Scene(scene.image)) for scene in scenes])
    assert {each.source.labelled for each in made} == {float((label != IGNORE).sum()) / COUNT}
    assert {each.target.labelled for each in made} == {0.0}
    (alone,) = counted([Batch(scenes[0], scenes[0])])
    assert alone.source.labelled is None
