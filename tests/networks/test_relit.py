"""What relights: in the network that is saved and used, at any size; weights of classes; what cannot be."""

from __future__ import annotations

import statistics
from math import log

import pytest
import torch
from torch import nn

from conftest import LIT
from segda.errors import DataError, RecipeError
from segda.networks import NETWORKS
from segda.networks.relit import Lit, Relit, log_rarity
from segda.recipes.build import build
from segda.run import fill, read_tensors, save_network

CLASSES = ("road", "sky", "car", "tram")
SHARES = {"road": 0.6, "sky": 0.3, "car": 0.05, "tram": None}
OVER = {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False}


def relit(**changes) -> Relit:
    torch.manual_seed(0)
    spec = LIT | {"over": OVER, "frequencies": SHARES, "spread": 0.5} | changes
    network: Relit = build(NETWORKS, spec, "network", class_names=CLASSES)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
    return network.eval()


@torch.no_grad()
def test_the_network_inside_sees_the_image_in_its_light():
    network, image = relit(), torch.rand(2, 3, 32, 48)
    mean, deviation = (torch.tensor(three).view(3, 1, 1) for three in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    light = network.relighting((image - mean) / deviation)
    seen = image + light * deviation
    assert light.abs().mean() > 0.01
    torch.testing.assert_close(network.relit(image), seen)
    output = network(image)
    assert isinstance(output, Lit)
    torch.testing.assert_close(output.light, light)
    torch.testing.assert_close(output.seen, (image - mean) / deviation)
    torch.testing.assert_close(output.logits, network.over(seen).logits)
    torch.testing.assert_close(network.features(image)[-1], network.over.features(seen)[-1])


@torch.no_grad()
@pytest.mark.parametrize("size", [(30, 33), (31, 34), (8, 9)])
def test_light_of_sides_that_are_no_multiples_of_four_is_that_of_the_image_reflected_on(size):
    network, seen = relit(), torch.randn(1, 3, *size)
    height, width = size
    rows = [*range(height), *(height - 2 - k for k in range(-height % 4))]
    columns = [*range(width), *(width - 2 - k for k in range(-width % 4))]
    theirs = network.relighting(seen[:, :, rows][..., columns])[..., :height, :width]
    assert torch.equal(network.light(seen), theirs)


def test_an_image_that_is_too_small_is_refused():
    with pytest.raises(DataError, match="7 x 40 pixels .* relit needs 8"):
        relit().light(torch.rand(1, 3, 7, 40))


# Weights


@torch.no_grad()
def test_what_is_used_afterwards_weighs_classes_and_training_does_not():
    network, image = relit(), torch.rand(1, 3, 32, 48)
    plain = relit(frequencies=None, spread=None)
    weights = network.weights(0.5)
    assert weights.min() < 0.6 and weights[-1] == 1
    for ask in ("infer", "low_res_logits"):
        ours, theirs = (getattr(one, ask)(image) for one in (network, plain))
        torch.testing.assert_close(ours, theirs * weights.view(-1, 1, 1))
    torch.testing.assert_close(network(image).logits, plain(image).logits)


def test_rare_classes_weigh_more_by_the_logarithm_of_their_frequency():
    logs = [log(share) for share in SHARES.values() if share is not None]
    mean, deviation = statistics.mean(logs), statistics.stdev(logs)  # over n - 1
    theirs = [(mean - one) / deviation for one in logs]
    assert log_rarity(SHARES, CLASSES).tolist() == pytest.approx([*theirs, 0], rel=1e-6)
    assert log_rarity(dict(reversed(SHARES.items())), CLASSES).tolist() == pytest.approx([*theirs, 0], rel=1e-6)


@pytest.mark.parametrize("shares", [{"a": 0.25, "b": 0.25}, {"a": 0.7, "b": None}, {"a": None, "b": None}])
def test_where_nothing_tells_classes_apart_all_weigh_the_same(shares):
    assert log_rarity(shares, ("a", "b")).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"frequencies": {"road": 1.0}}, r"network.frequencies: 1 of 4 classes; missing sky, car, tram: give each"),
        ({"frequencies": SHARES | {"trm": 0.1}}, r"network.frequencies: unknown class 'trm'; did you mean 'tram'"),
        ({"frequencies": SHARES | {"tram": 0.0}}, r"network.frequencies.tram: 0.0 is no share of the pixels"),
        ({"frequencies": SHARES | {"tram": 12.0}}, r"network.frequencies.tram: 12.0 is no share of the pixels"),
        ({"frequencies": None}, r"network.spread: goes with network.frequencies"),
        ({"spread": None}, r"network.spread: goes with network.frequencies"),
        ({"spread": -0.1}, r"network.spread: -0.1 is below 0, and rare classes would weigh less"),
        ({"spread": 5.0}, r"network.spread: with 5 the most frequent class would weigh -\d.*, not above 0; give less"),
        ({"blocks": 0}, r"network.blocks: 0 is below 1"),
        ({"over": None}, r"network.over: is a network of its own"),
    ],
)
def test_what_it_cannot_be_is_said_in_a_line(changes, said):
    with pytest.raises(RecipeError, match=said):
        relit(**changes)


# Saved


@torch.no_grad()
def test_a_saved_network_relights_and_weighs_as_before(tmp_path):
    network, image = relit(), torch.rand(1, 3, 33, 48)
    spec = LIT | {"over": OVER, "frequencies": SHARES, "spread": 0.5}
    save_network(tmp_path / "network.safetensors", network, spec, step=None)
    torch.manual_seed(1)
    other = build(NETWORKS, spec, "network", class_names=CLASSES).eval()
    assert not torch.equal(other.infer(image), network.infer(image))
    fill(other, read_tensors(tmp_path / "network.safetensors"), tmp_path)
    assert torch.equal(other.infer(image), network.infer(image))


def test_its_groups_hold_each_weight_once_and_its_blocks_what_relights():
    network = relit()
    held = [weight for group in network.groups().values() for weight in group]
    learning = [weight for weight in network.parameters() if weight.requires_grad]
    assert sorted(map(id, held)) == sorted(map(id, learning))
    assert network.groups()["light"] == [*network.relighting.parameters()]
    assert network.blocks()[0] is network.relighting and network.blocks()[1:] == network.over.blocks()
