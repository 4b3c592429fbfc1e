"""Batch norm with a data set's statistics: against numpy in float64, at every depth; what it leaves alone; refusals."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

from conftest import write_camvid
from evaluation.test_inference import CPU, settings_of
from segda.data.sets.datasets import open_data
from segda.errors import DataError, RecipeError
from segda.evaluation.inference import in_boxes, sizes_scaled
from segda.evaluation.look import Eye
from segda.evaluation.protocol import Statistics
from segda.evaluation.statistics import Moments, adopt_exact, adopt_statistics, batches, learning_norms, norms_of
from segda.networks import NETWORKS
from segda.recipes.build import build
from segda.scene import Scene

CLASSES = ("road", "sky", "car")
SPECS = {
    "mit and its decoder": {
        "name": "mit_daformer", "encoder": "tiny", "weights": "scratch", "channels": 8, "dilations": [1, 3],
        "dropout": 0.1, "drop_path": 0.1,
    },
    "deeplab": {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": True, "aux_weight": 0.1},
    "lite": {
        "name": "encoder_decoder", "encoder": "lite0", "weights": "scratch", "decoder": "segformer_64", "dropout": 0.1,
    },
}  # fmt: skip
SPECS["lite, frozen"] = SPECS["lite"] | {"norm": "frozen"}
WITHOUT = {
    "name": "encoder_decoder", "encoder": "tiny", "weights": "scratch", "decoder": "deeplab_v2_reduced",
    "drop_path": 0.1,
}  # fmt: skip
POOLED = {**WITHOUT, "decoder": "upernet_256", "dropout": 0.1}


class Pictures:
    """Random images of given sizes, brighter and brighter; no label may be asked for."""

    spec = "pictures:train"

    def __init__(self, *sizes: tuple[int, int], bad: int | None = None):
        self.sizes, self.bad = sizes, bad

    def __len__(self) -> int:
        return len(self.sizes)

    def size(self, i: int) -> tuple[int, int]:
        return self.sizes[i]

    def read(self, i: int, label: bool = False) -> Scene:
        assert not label
        if i == self.bad:
            raise DataError(f"{i}: cannot be read")
        rng = np.random.default_rng(i)
        return Scene(torch.from_numpy(rng.integers(0, 60 + 15 * i, (3, *self.sizes[i]), np.uint8)), names=(str(i),))


def network_of(spec: dict) -> nn.Module:
    torch.manual_seed(0)
    network = build(NETWORKS, spec, "network", class_names=CLASSES)
    for norm in norms_of(network):
        norm.running_mean.uniform_(-0.2, 0.2)
        norm.running_var.uniform_(0.5, 2)
    return network.eval()


def eye(network: nn.Module, **how) -> Eye:
    return Eye(network, settings_of(**how), CPU, nullcontext())


def state_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def moments_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the channels of (B, C, ...) in float64."""
    rows = np.moveaxis(values.astype(np.float64), 1, 0).reshape(values.shape[1], -1)
    return rows.mean(1), ((rows - rows.mean(1, keepdims=True)) ** 2).mean(1)


@settings(max_examples=30, deadline=None)
@given(some.lists(some.integers(1, 9), min_size=1, max_size=6), some.sampled_from([0, 3, 1000]), some.integers(0, 99))
def test_moments_of_parts_are_those_of_the_whole_in_float64(lengths, offset, seed):
    rng = np.random.default_rng(seed)
    # The parts' means differ: what is between them is most of the variance.
    parts = [offset + rng.normal(5 * k, 1, (count, 3, 2, 4)).astype(np.float32) for k, count in enumerate(lengths)]
    ours = Moments(3)
    for part in parts:
        ours.add(torch.from_numpy(part))
    mean, variance = moments_of(np.concatenate(parts))
    assert ours.mean.dtype == ours.variance.dtype == torch.float64 and ours.count == 8 * sum(lengths)
    np.testing.assert_allclose(ours.mean.numpy(), mean, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(ours.variance.numpy(), variance, rtol=1e-4 if offset == 1000 else 1e-5)


def test_values_of_half_the_precision_are_pooled_in_full():
    values = torch.randn(4, 2, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours = Moments(2)
    ours.add(values)
    mean, variance = moments_of(values.float().numpy())
    np.testing.assert_allclose(ours.mean.numpy(), mean, atol=1e-6)
    np.testing.assert_allclose(ours.variance.numpy(), variance, rtol=1e-6)


@pytest.mark.parametrize("name", ["mit and its decoder", "deeplab", "lite", "lite, frozen"])
def test_where_one_batch_holds_all_each_batch_norm_sees_its_own_statistics_at_every_depth(name):
    network, images = network_of(SPECS[name]), Pictures(*[(64, 96)] * 5)
    adopt_statistics(eye(network), images)
    norms = learning_norms(network)
    seen: dict[nn.Module, np.ndarray] = {}
    for norm in norms:
        norm.register_forward_pre_hook(lambda norm, given: seen.update({norm: given[0].numpy().copy()}))
        if name.startswith("lite"):  # at rest it is a part of the convolution; so it does what it does at rest, seen
            norm.training = True
            norm.forward = lambda x, norm=norm: nn.functional.batch_norm(
                x, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
            )
    with torch.no_grad():
        network.low_res_logits(torch.stack([images.read(i).image for i in range(5)]) / 255)
    assert len(norms) == (1 if name == "lite, frozen" else len(norms_of(network)))
    for norm in norms:
        mean, variance = moments_of(seen[norm])
        scale = np.sqrt(variance.max())
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-3, atol=1e-3 * scale)
        np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-3, atol=1e-4 * scale**2)


class Two(nn.Module):
    """Two batch norms, one after the other, and one that evaluation does not ask."""

    class_names, classes, align_corners, least_images = CLASSES, 3, False, 1

    def __init__(self):
        super().__init__()
        self.first, self.conv, self.second = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.auxiliary, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)
        nn.init.normal_(self.conv.weight, generator=torch.Generator().manual_seed(5))

    def low_res_logits(self, image):
        return self.second(self.conv(self.dropout(self.first(image)).relu()))

    infer = low_res_logits


def test_in_several_batches_each_is_normalised_by_its_own_as_in_a_plain_loop():
    network, images = Two(), Pictures(*[(6, 9)] * 11)
    found = adopt_statistics(eye(network), images)
    weight, bias = (part.detach().double().numpy() for part in (network.conv.weight[:, :, 0, 0], network.conv.bias))
    first, second = [], []
    for members in (range(0, 11, 2), range(1, 11, 2)):  # no more than eight at once: every second
        x = np.stack([images.read(i).image.numpy() / 255 for i in members])
        mean, variance = (part[:, None, None] for part in moments_of(x))
        inner = np.maximum((x - mean) / np.sqrt(variance + 1e-5), 0)
        first.append(x)
        second.append(np.einsum("oc,bchw->bohw", weight, inner) + bias[:, None, None])
    for norm, seen in ((network.first, first), (network.second, second)):
        mean, variance = moments_of(np.concatenate(seen))
        np.testing.assert_allclose(norm.running_mean.numpy(), mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norm.running_var.numpy(), variance, rtol=1e-5)
    assert found == Statistics("pictures:train", 11, norms=2, of=3)


def test_a_batch_norm_that_no_image_reaches_keeps_its_statistics():
    network = Two()
    adopt_statistics(eye(network), Pictures((6, 9), (6, 9)))
    assert (network.auxiliary.running_mean == 0).all() and (network.auxiliary.running_var == 1).all()


@pytest.mark.parametrize(
    "how",
    [
        {"flip": True},
        {"scales": (0.5, 1.0)},
        {"resize": (8, 8), "shape": "pad"},
        {"how": "slide", "window": (5, 4), "stride": (3, 4), "flip": True},
    ],
)
def test_all_views_of_an_image_count_as_the_evaluation_takes_them(how):
    network, images = Two(), Pictures((12, 8), (12, 8), (8, 12), (8, 8))
    adopt_statistics(eye(network, **how), images)
    values = []
    for i in range(4):
        for image in in_boxes(images.read(i).image, settings_of(**how)):
            pixels = image.numpy() / 255
            height, width = pixels.shape[1:]
            if how.get("how") == "slide":
                tops = sorted({min(top, height - 5) for top in range(0, height - 5 + 3, 3)})
                lefts = sorted({min(left, width - 4) for left in range(0, width - 4 + 4, 4)})
                # The mirrored image is cut in the same places.
                values += [
                    seen[:, top : top + 5, left : left + 4].reshape(3, -1)
                    for seen in (pixels, pixels[..., ::-1]) for top in tops for left in lefts
                ]  # fmt: skip
            else:
                values.append(pixels.reshape(3, -1))
    mean, variance = moments_of(np.concatenate(values, axis=1)[None])
    np.testing.assert_allclose(network.first.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(network.first.running_var.numpy(), variance, rtol=1e-5)


def test_of_two_sets_each_image_counts_once_and_no_batch_has_both():
    network = Two()
    sets = [Pictures(*[(6, 9)] * 3), Pictures(*[(8, 4)] * 10)]
    assert adopt_exact(eye(network), sets) == 2
    pixels = [[images.read(i).image.double().numpy() / 255 for i in range(len(images))] for images in sets]
    mean, variance = moments_of(np.concatenate([one.reshape(3, -1) for one in chain(*pixels)], axis=1)[None])
    np.testing.assert_allclose(network.first.running_mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(network.first.running_var.numpy(), variance, rtol=1e-5)
    seen = []
    network.first.register_forward_pre_hook(lambda norm, given: seen.append(given[0].shape))
    adopt_exact(eye(network), sets)
    assert seen == [(3, 3, 6, 9), (5, 3, 8, 4), (5, 3, 8, 4)]


def test_batch_norms_that_training_left_alone_are_left_alone_unless_they_are_named():
    network, images = network_of(SPECS["lite, frozen"]), Pictures(*[(64, 64)] * 3)
    (head,) = learning_norms(network)
    before = state_of(network)
    found = adopt_statistics(eye(network), images)
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    (name,) = [name for name, module in network.named_modules() if module is head]
    assert changed == {f"{name}.running_mean", f"{name}.running_var"}
    assert (found.norms, found.of) == (1, len(norms_of(network)))
    every = norms_of(network)
    assert adopt_statistics(eye(network), images, every).norms == len(every) > 40
    assert not torch.equal(network.encoder.stem.norm.running_mean, before["encoder.stem.norm.running_mean"])


def test_frozen_layers_keep_their_statistics():
    network = network_of(SPECS["lite"] | {"freeze": 2})
    still = [norm for part in network.encoder.still() for norm in norms_of(part)]
    assert still and not set(still) & set(learning_norms(network))
    assert len(still) + len(learning_norms(network)) == len(norms_of(network))


def test_nothing_but_the_statistics_changes_and_no_random_number_is_drawn():
    network = network_of(SPECS["mit and its decoder"]).train()
    network.encoder.eval()
    modes = [module.training for module in network.modules()]
    before, drawn = state_of(network), torch.get_rng_state()
    adopt_statistics(eye(network), Pictures(*[(64, 64)] * 3))
    assert (torch.get_rng_state() == drawn).all() and [module.training for module in network.modules()] == modes
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var"}
    assert all(norm.track_running_stats and not norm._forward_pre_hooks for norm in norms_of(network))


def test_after_an_error_the_network_is_as_it_was():
    network = network_of(SPECS["deeplab"]).train()
    before = state_of(network)
    with pytest.raises(DataError, match="9: cannot be read"):
        adopt_statistics(eye(network), Pictures(*[(64, 64)] * 12, bad=9))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training and all(
        norm.track_running_stats and not norm._forward_pre_hooks for norm in norms_of(network)
    )


def test_labels_need_not_be_there(tmp_path):
    root = write_camvid(tmp_path)
    for label in (root / "camvid" / "trainannot").iterdir():
        label.unlink()
    found = adopt_statistics(eye(Two()), open_data("camvid:train:dusk", root))
    assert found == Statistics("camvid:train:dusk", 3, norms=2, of=3)


def test_a_network_without_batch_norm_that_learns_is_refused():
    way_out = r"has no batch norm that learns statistics in training.*leave --statistics out"
    with pytest.raises(RecipeError, match=f"the network {way_out}"):
        adopt_statistics(eye(network_of(WITHOUT)), Pictures((64, 64)))
    with pytest.raises(RecipeError, match=f"run: its student {way_out}"):
        learning_norms(network_of(WITHOUT), "run: its student")


def test_one_image_is_too_few_for_batch_norm_after_pooling_to_one_cell():
    network = network_of(POOLED)
    with pytest.raises(DataError, match=r"pictures:train.*one image is too few.*two images or more of each size"):
        adopt_statistics(eye(network), Pictures((64, 64), (64, 64), (64, 96)))
    adopt_statistics(eye(network), Pictures(*[(64, 64)] * 9))  # five and four, not eight and one


@given(some.lists(some.sampled_from("abc"), max_size=40), some.integers(1, 9))
def test_batches_are_as_few_as_can_be_alike_in_size_and_spread_over_the_data(sizes, most):
    found = batches(sizes, most)
    assert sorted(chain.from_iterable(found)) == list(range(len(sizes)))
    assert all(len({sizes[i] for i in batch}) == 1 and len(batch) <= most for batch in found)
    for size in set(sizes):
        of_size = [batch for batch in found if sizes[batch[0]] == size]
        assert len(of_size) == -(-sizes.count(size) // most)
        assert max(map(len, of_size)) - min(map(len, of_size)) <= 1
        assert max(batch[0] for batch in of_size) < min((batch[1] for batch in of_size if len(batch) > 1), default=99)


@pytest.mark.parametrize("shape", ["keep", "stretch", "pad"])
@pytest.mark.parametrize("resize", [None, (20, 10)])
def test_the_sizes_that_batches_go_by_are_those_that_the_network_is_shown(shape, resize):
    how = settings_of(shape=shape, resize=resize, scales=(0.5, 1.0, 1.75))
    for size in ((9, 31), (31, 9), (10, 20), (24, 24)):
        image = torch.zeros(3, *size, dtype=torch.uint8)
        assert sizes_scaled(size, how) == [tuple(small.shape[1:]) for small in in_boxes(image, how)]
