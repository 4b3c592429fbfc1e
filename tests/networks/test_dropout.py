"""Dropout by scenes: how often, how independently, and that a scene's numbers are its own."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
import torch

from reporting.test_tables import SCALER, batch_of, method_named
from segda.distributed import group
from segda.distributed.shares import Share
from segda.networks.dropout import ChannelDropout, DropPath, SceneDropout, mixed, number_scenes
from segda.training.step import train_step

LAYERS = [DropPath(0.3), ChannelDropout(0.3)]
NAMED = pytest.mark.parametrize("layer", LAYERS, ids=["path", "channel"])


def split_mix_64(key: int, counter: int) -> int:
    """The published function, in Python's integers: state = key + counter * golden gamma."""
    z = (key + counter * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def test_split_mix_64_gives_the_numbers_that_are_published_for_it():
    # Of the seed 1234567, as in java.util.SplittableRandom's and Rust's test vectors.
    assert [split_mix_64(1234567, n) for n in (1, 2, 3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


def test_random_bits_are_those_of_split_mix_64():
    keys = np.random.default_rng(0).integers(0, 2**63, 20)
    counters = [0, 1, 2, 511, 2**32, 2**32 + 1, 7 * 2**32 + 255, 2**45]
    ours = mixed(torch.from_numpy(keys)[:, None], torch.tensor(counters)) >> 33
    theirs = [[split_mix_64(int(key), one) >> 33 for one in counters] for key in keys]
    assert torch.equal(ours & 2**31 - 1, torch.tensor(theirs))


def kept_by(layer: SceneDropout, calls: int, scenes: int, channels: int) -> np.ndarray:
    """(calls, scenes, channels) of 0 and 1: what was left; a path has one channel."""
    torch.manual_seed(2)
    found = torch.stack([layer(torch.ones(scenes, channels, 1, 1)) for _ in range(calls)])[..., 0, 0]
    assert set(found.unique().tolist()) == {0.0, torch.tensor(1 / (1 - layer.p)).item()}
    kept = (found > 0).double().numpy()
    return kept[..., :1] if isinstance(layer, DropPath) else kept


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("kind", [DropPath, ChannelDropout])
def test_as_much_is_dropped_as_is_asked_for(kind, p):
    kept = kept_by(kind(p), 2000, 4, 16)
    # Five standard deviations of a mean of independent numbers.
    assert abs(kept.mean() - (1 - p)) < 5 * np.sqrt(p * (1 - p) / kept.size)
    # So is each scene's, and each channel's.
    for axes in ((0, 2), (0, 1)):
        count = kept.size / kept.mean(axes).size
        assert abs(kept.mean(axes) - (1 - p)).max() < 5 * np.sqrt(p * (1 - p) / count)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """In standard deviations of that of independent numbers."""
    return abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) * np.sqrt(one.size)


@NAMED
def test_scenes_and_layers_are_dropped_independently(layer):
    kept = kept_by(layer, 4000, 6, 8)
    for one in range(6):
        for other in range(one):
            assert correlation(kept[:, one], kept[:, other]) < 5, "scenes of one call"
    for lag in (1, 2, 3):
        assert correlation(kept[lag:], kept[:-lag]) < 5, "calls after each other"
        assert correlation(kept[lag:, 1:], kept[:-lag, :-1]) < 5, "calls after each other, scenes side by side"
    # All 2^4 outcomes of four scenes are as frequent as they would be: a sum of chi squares with 15 degrees of freedom.
    outcome = (kept[:, :4, 0] @ [1, 2, 4, 8]).astype(int)
    expected = np.array([0.7 ** n.bit_count() * 0.3 ** (4 - n.bit_count()) for n in range(16)]) * len(outcome)
    assert ((np.bincount(outcome, minlength=16) - expected) ** 2 / expected).sum() < 44


def test_channels_are_dropped_independently():
    kept = kept_by(ChannelDropout(0.3), 1500, 2, 64)
    for lag in (1, 2, 3, 8, 16, 32):
        assert correlation(kept[..., lag:], kept[..., :-lag]) < 5
    # The number that is left varies as it does among independent ones; (n - 1) var / sigma^2 has deviation sqrt(2 n).
    counts = kept.sum(2)
    assert abs(counts.var() / (64 * 0.3 * 0.7) - 1) < 5 * np.sqrt(2 / counts.size)


@NAMED
def test_a_scene_has_the_same_numbers_wherever_its_batch_begins(layer):
    maps = torch.ones(8, 5, 2, 2)
    torch.manual_seed(3)
    whole, after = layer(maps), torch.rand(1)
    for first, count in ((0, 2), (3, 1), (5, 3)):
        number_scenes(layer)(first)
        torch.manual_seed(3)
        assert torch.equal(layer(maps[:count]), whole[first : first + count])
        assert torch.rand(1) == after, "torch's generator goes on alike, too"
    number_scenes(layer)(0)


@NAMED
def test_what_is_kept_does_not_depend_on_the_numbers_type(layer):
    maps, seen = torch.ones(4, 7, 1, 1), []
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        torch.manual_seed(3)
        found = layer(maps.to(dtype))
        assert found.dtype is dtype
        seen.append(found != 0)
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[0], seen[2])


@NAMED
def test_nothing_is_drawn_where_nothing_is_dropped(layer):
    maps = torch.rand(2, 3, 4, 4)
    before = torch.get_rng_state()
    layer.eval()
    assert layer(maps) is maps
    layer.train()
    assert type(layer)(0.0)(maps) is maps
    assert torch.equal(torch.get_rng_state(), before)


def test_the_scenes_number_is_no_part_of_a_checkpoint():
    assert not DropPath(0.1).state_dict() and not ChannelDropout(0.1).state_dict()


def test_a_teacher_draws_nothing():
    method = method_named("daformer")
    assert any(isinstance(module, SceneDropout) and module.p > 0 for module in method.parts.teacher.modules())
    image = batch_of(0).target.image
    before = torch.get_rng_state()
    method.parts.teacher(image)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_numbers_its_scenes_and_leaves_none_behind():
    method = method_named("daformer")
    layers = [module for module in method.student.modules() if isinstance(module, SceneDropout)]
    told = []
    layers[-1].register_forward_pre_hook(lambda layer, _: told.append(layer.first_scene))
    micro_batches = [batch_of(0).replace(share=Share(first_scene=2 * k, count=2)) for k in range(2)]
    train_step(method, micro_batches, 0, {}, SCALER, torch.float32)
    assert told == [0, 2, 0, 2], "the source of both, then the mixed images of both: they meet in between"
    assert {layer.first_scene for layer in layers} == {0}


def test_a_step_that_fails_leaves_no_number_behind():
    method = method_named("source_only")
    layers = [module for module in method.student.modules() if isinstance(module, SceneDropout)]

    def fail(layer, _):
        assert layer.first_scene == 2
        raise ZeroDivisionError

    layers[-1].register_forward_pre_hook(fail)
    share = Share(first_scene=2, count=2)
    with pytest.raises(ZeroDivisionError), patch.object(group, "world", lambda: 2):
        train_step(method, [batch_of(0).replace(share=share)], 0, {}, SCALER, torch.float32)
    assert {layer.first_scene for layer in layers} == {0}
