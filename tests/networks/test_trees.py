"""Networks inside networks: built, checked, trained, saved, loaded without what they started from, measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from conftest import small_recipe
from resuming import at, same
from segda import run as runs
from segda.commands.train import train
from segda.errors import RecipeError, WeightsError
from segda.networks import NETWORKS, DeepLabV2
from segda.networks.activation_checkpointing import checkpoint_activations
from segda.networks.encoders.resnet import ResNet
from segda.networks.network import Network
from segda.recipes.build import build, check, from_scratch
from segda.recipes.recipe import Recipe
from segda.training.max_batch import Trial
from two_scales import TwoScales

CLASSES = ("road", "sky", "car")
TWICE = "two_scales:TwoScales"
INNER = {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False}


def nested(spec: dict, times: int = 2) -> dict:
    for _ in range(times):
        spec = {"name": TWICE, "detail": 0.1, "over": spec}
    return spec


class Optional(TwoScales):
    """An argument that may be a network."""

    def __init__(self, class_names, *, over: Network | None = None, detail: float = 0.5):
        super().__init__(class_names, over=over or DeepLabV2(class_names, **small_deeplab()), detail=detail)


class OfDeepLab(TwoScales):
    """An argument that must be one of a class."""

    def __init__(self, class_names, *, over: DeepLabV2):
        super().__init__(class_names, over=over, detail=0.5)


def small_deeplab() -> dict:
    return {key: value for key, value in INNER.items() if key != "name"}


def built(spec: dict) -> Network:
    torch.manual_seed(0)
    return build(NETWORKS, spec, "network", class_names=CLASSES)


# Built and checked


def test_a_spec_inside_a_spec_becomes_a_network_inside_a_network():
    network = built(nested(INNER))
    assert isinstance(network.over, TwoScales) and isinstance(network.over.over, DeepLabV2)
    assert network.over.over.class_names == network.class_names == CLASSES
    torch.manual_seed(0)
    alone = DeepLabV2(CLASSES, **small_deeplab()).state_dict()
    inside = network.state_dict()
    assert all(torch.equal(inside[f"over.over.{name}"], value) for name, value in alone.items())
    assert network.blocks() == network.over.over.encoder.blocks()
    assert network.wrapped() == [network.over]


def test_an_optional_network_may_be_left_out_be_null_or_be_given():
    for spec in ({}, {"over": None}, {"over": INNER}):
        assert isinstance(built({"name": "test_trees_module:Optional", **spec}).over, DeepLabV2)


@pytest.fixture(autouse=True)
def this_module(monkeypatch):
    """Under a name that recipes can say, however pytest has imported it."""
    import sys

    monkeypatch.setitem(sys.modules, "test_trees_module", sys.modules[__name__])


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (nested(INNER | {"encodr": 1}, 1), r"^network.over deeplab_v2 has no setting 'encodr'; did you mean 'encoder'"),
        (nested(INNER | {"multi_level": 7}), r"^network.over.over.multi_level: Input should be a valid boolean"),
        (nested({"name": "deeplab_v2"}), r"^network.over.over deeplab_v2 needs encoder, weights, multi_level"),
        (nested(INNER | {"name": "deeplap_v2"}), r"^network.over.over.name: unknown 'deeplap_v2'; did you mean"),
        (nested({"encoder": "b0"}), r"^network.over.over has no name; known: "),
        (nested("b5", 1), r"^network.over: is a network of its own; write a block, .* \(got 'b5'\)"),
        (nested(None, 1), r"^network.over: is a network of its own"),
        (nested(INNER, 1) | {"detial": 2}, r"^network two_scales:TwoScales has no setting 'detial'; did you mean"),
        ({"name": "test_trees_module:OfDeepLab", "over": nested(INNER)},
         r"^network.over.name: 'two_scales:TwoScales' is no DeepLabV2"),
    ],
)  # fmt: skip
def test_what_is_wrong_inside_is_said_with_its_whole_path(spec, said):
    with pytest.raises(RecipeError, match=said):
        check(NETWORKS, spec, "network", ("class_names",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "smal"}, r"^network.over.over.encoder: unknown encoder 'smal'; did you mean 'small'"),
        ({"multi_level": True}, r"^network.over.over.aux_weight: is the auxiliary head's share"),
        ({"weights": "nowhere.pth"}, r"^network.over.over.weights: no file or folder nowhere.pth"),
    ],
)
def test_what_a_network_says_of_its_settings_has_the_whole_path(changes, said):
    with pytest.raises((RecipeError, WeightsError), match=said):
        built(nested(INNER | changes))


def test_from_scratch_reaches_every_depth_and_nothing_else():
    spec = nested(INNER | {"weights": "nvidia/mit-b5"})
    found = from_scratch(NETWORKS, spec, "network")
    assert found == nested(INNER)
    assert spec["over"]["over"]["weights"] == "nvidia/mit-b5"


def test_blocks_inside_compute_their_maps_again():
    network = built(nested(INNER))
    checkpoint_activations(network)
    network(torch.rand(2, 3, 32, 32)).logits.mean().backward()


# Trained


def recipe_of(camvid: Path, weights: Path | str, times: int = 2) -> Recipe:
    network = json.dumps(nested(INNER | {"weights": str(weights)}, times))
    settings = ("evaluate.data=[]", "save_every=1", "steps=3")
    return small_recipe(camvid, "ebda").override(f"network={network}", *settings)


@pytest.fixture
def pretrained(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    save_file(ResNet("small").state_dict(), tmp_path / "pretrained.safetensors")
    return tmp_path / "pretrained.safetensors"


def test_a_wrapped_network_trains_goes_on_and_is_loaded_when_its_start_is_gone(camvid, tmp_path, pretrained, said):
    recipe = recipe_of(camvid, pretrained)

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    train(recipe, tmp_path / "whole")
    assert f"two scales of two scales of encoder small: 174 tensors from {pretrained}, our names" in said
    with pytest.raises(Killed), at(2, die):
        train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")

    pretrained.unlink()
    for which in ("student", "teacher"):
        network = runs.load_network(tmp_path / "run", which)
        assert isinstance(network.over.over, DeepLabV2)
        with safe_open(runs.product_path(tmp_path / "run", which), "pt") as file:
            assert json.loads(file.metadata()["network"]) == recipe.network
        with torch.no_grad():
            assert network.infer(torch.rand(1, 3, 48, 64)).isfinite().all()


def test_set_reaches_the_settings_of_a_network_inside(camvid):
    recipe = recipe_of(camvid, "scratch").override(
        "network.over.over.weights=nvidia/mit-b0", "network.over.detail=0.25"
    )
    assert recipe.network["over"]["over"]["weights"] == "nvidia/mit-b0"
    assert recipe.network["over"]["detail"] == 0.25
    with pytest.raises(RecipeError, match="--set: network.over deeplab_v2 has no setting 'detail'"):
        recipe_of(camvid, "scratch", 1).override("network.over.detail=1")


def test_the_memory_of_a_wrapped_network_is_measured_without_its_start(camvid):
    trial = Trial(recipe_of(camvid, "nowhere.pth"))
    assert trial.least == 1 and trial(1).memory > 0


def test_as_many_images_are_needed_as_the_network_inside_needs(camvid):
    inner = {
        "name": "encoder_decoder", "encoder": "resnet50_v1c", "decoder": "upernet_256", "weights": "scratch",
        "dropout": 0.1,
    }  # fmt: skip
    with torch.device("meta"):
        assert built(nested(inner)).least_images == 2
        assert built(nested(INNER)).least_images == 1
