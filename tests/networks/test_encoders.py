"""Every row of ENCODERS against the face of encoders; a made-up row of one map; layers that do not learn, or slower."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from conftest import small_recipe
from networks.test_network_table import SMALL, images
from resuming import at, same
from segda import run as runs
from segda.commands.train import train
from segda.distributed.shares import ALONE
from segda.errors import RecipeError, WeightsError
from segda.networks import NETWORKS
from segda.networks.encoder_decoder import DECODERS
from segda.networks.encoders.encoder import Encoder, Layer, frozen_weights
from segda.networks.encoders.pyramids import SimplePyramid
from segda.networks.encoders.table import ENCODERS, IMAGENET, EncoderRow, on_grid
from segda.networks.network import Network
from segda.networks.weights.load import load_encoder_weights
from segda.networks.weights.names import FAMILIES
from segda.parts.teacher import Teacher
from segda.recipes.build import build
from segda.recipes.optimisers import AdamW
from segda.recipes.recipe import Recipe
from segda.training import assembly
from segda.training.optim import optimiser

CLASSES = ("road", "sky", "car")
PATCH = 14


class SmallViT(Encoder):
    """(B, 3, H, W) -> one map (B, 24, H / 14, W / 14): patches with a learnt mark, three pre-norm blocks of an MLP."""

    stride, channels = PATCH, (24,)

    def __init__(self, name: str, *, drop_path: float):
        super().__init__()
        self.name = name
        self.patch = nn.Conv2d(3, 24, PATCH, PATCH)
        self.mark = nn.Parameter(torch.full((24,), 0.1))
        self.layer = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)) for _ in range(3)
        )
        self.norm = nn.LayerNorm(24)

    def blocks(self) -> list[nn.Module]:
        return list(self.layer)

    def layers(self) -> list[Layer]:
        first, second, third = self.layer
        return [[self.patch, self.mark], [first], [second], [third, self.norm]]

    def forward(self, image: Tensor) -> list[Tensor]:
        assert not any(side % PATCH for side in image.shape[-2:])
        cells = self.patch(image).permute(0, 2, 3, 1) + self.mark
        for block in self.layer:
            cells = cells + block(cells)
        return [self.norm(cells).permute(0, 3, 1, 2)]


@pytest.fixture
def vit(monkeypatch) -> dict:
    """A row of one map in the table, and the settings of a network with it."""
    row = EncoderRow(SmallViT, (24,), (PATCH,), PATCH, None, multiple=PATCH, drop_path=True)
    monkeypatch.setitem(ENCODERS, "small_vit", row)
    return {
        "name": "encoder_decoder", "encoder": "small_vit", "decoder": "conv1", "weights": "scratch", "dropout": 0.1,
        "drop_path": 0.0, "pyramid": "simple",
    }  # fmt: skip


def built(spec: dict) -> Network:
    torch.manual_seed(0)
    return build(NETWORKS, spec, "network", class_names=CLASSES)


def encoder_of(name: str) -> Encoder:
    row = ENCODERS[name]
    with torch.device("meta"):
        return row.build(name, **({"drop_path": 0.1} if row.drop_path else {}))


# The table


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_is_what_its_row_says(name):
    encoder, row = encoder_of(name), ENCODERS[name]
    assert (encoder.name, encoder.channels, encoder.stride) == (name, row.channels, row.strides[-1])
    assert row.family in FAMILIES
    assert row.smallest >= 1 and row.multiple >= 1 and len(row.channels) == len(row.strides)
    assert {id(block) for block in encoder.blocks()} <= {id(part) for layer in encoder.layers() for part in layer}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_weight_is_in_one_layer_and_a_layer_stands_for_a_block(name):
    encoder = encoder_of(name)
    inside = [id(weight) for layer in encoder.layers() for part in layer for weight in part.parameters()]
    assert sorted(inside) == sorted(id(weight) for weight in encoder.parameters())
    # The stem is a block of some encoders, and no layer's of others.
    assert len(encoder.layers()) in (len(encoder.blocks()), len(encoder.blocks()) + 1)


MEASURED = ["tiny", "small", "resnet50_v1c", "resnest50", "lite0", "lite2", "dinov3_tiny", "dinov3_convnext_micro"]


@pytest.mark.parametrize("name", MEASURED)
@torch.no_grad()
def test_maps_have_the_strides_and_channels_of_the_row(name):
    row = ENCODERS[name]
    encoder = row.build(name, **({"drop_path": 0.1} if row.drop_path else {})).eval()
    for channels, stride, level in zip(row.channels, row.strides, encoder(images(1, 3, 64, 96)), strict=True):
        assert level.shape[:2] == (1, channels)
        for side, pixels in zip(level.shape[2:], (64, 96), strict=True):
            assert pixels / stride <= side <= pixels / stride + 1


@torch.no_grad()
def test_an_encoder_of_caffe_sees_what_deeplab_shows_it():
    deeplab = built({"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False}).eval()
    other = built(
        {"name": "encoder_decoder", "encoder": "small", "decoder": "deeplab_v2_reduced", "weights": "scratch"}
    ).eval()
    other.encoder.load_state_dict(deeplab.encoder.state_dict())
    for ours, theirs in zip(other.features(images(1, 3, 48, 64)), deeplab.features(images(1, 3, 48, 64)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert other.fill == deeplab.fill


# One map, and sides of its own


@pytest.mark.parametrize(
    ("sides", "multiple", "theirs"),
    [((28, 42), 14, (28, 42)), ((30, 41), 14, (28, 42)), ((35, 6), 14, (42, 14)), ((7, 8), 1, (7, 8))],
)
def test_images_are_brought_to_the_nearest_multiples(sides, multiple, theirs):
    image = images(1, 3, *sides)
    ours = on_grid(image, multiple)
    assert ours.shape[-2:] == theirs
    if sides == theirs:
        assert ours is image
    else:
        expected = nn.functional.interpolate(image, theirs, mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("size", [(28, 42), (33, 47), (96, 65), (14, 90)])
@pytest.mark.parametrize("decoder", ["conv1", "deeplab_v2_reduced", "deeplab_v3_plus_enlarged"])
@torch.no_grad()
def test_an_encoder_of_one_map_takes_any_image_and_any_decoder(vit, decoder, size):
    spec = vit | {"decoder": decoder}
    if not DECODERS[decoder].dropout:
        del spec["dropout"]
    network = built(spec).eval()
    assert network(images(2, 3, *size)).logits.shape == (2, 3, *size)
    assert network.stride == 2 * PATCH


@torch.no_grad()
def test_a_pyramid_has_four_maps_each_half_as_large_and_keeps_the_encoders_own():
    torch.manual_seed(0)
    cells = torch.randn(1, 24, 4, 6)
    four, two, same_map, half = SimplePyramid(24)([cells])
    assert [tuple(level.shape[1:]) for level in (four, two, same_map, half)] == [
        (6, 16, 24), (12, 8, 12), (24, 4, 6), (24, 2, 3),
    ]  # fmt: skip
    assert same_map is cells
    assert torch.equal(half[0, :, 0, 0], cells[0, :, :2, :2].amax((1, 2)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pyramid": None}, "network.pyramid: missing; encoder small_vit has one map, .*: simple"),
        ({"pyramid": "simpel"}, "network.pyramid: unknown pyramid 'simpel'; did you mean 'simple'"),
        ({"encoder": "tiny"}, "network.pyramid: simple has no effect, encoder tiny has several maps; remove it"),
        ({"weights": "some/where"}, "network.weights: no file is known of encoder small_vit; set it to 'scratch'"),
    ],
)
def test_what_does_not_go_with_one_map_is_refused(vit, changes, said):
    with pytest.raises((RecipeError, WeightsError), match=said):
        built(vit | changes)


def test_weights_of_an_unknown_family_are_refused_at_once(vit):
    with pytest.raises(WeightsError, match="no file is known of encoder small_vit"):
        load_encoder_weights(SmallViT("small_vit", drop_path=0.0), "file.pth")


def recipe_of(camvid: Path, network: dict, method: str = "ebda", *settings: str) -> Recipe:
    return small_recipe(camvid, method).override(
        f"network={json.dumps(network)}", "evaluate.data=[]", "steps=3", "save_every=1", *settings
    )


def test_an_encoder_of_one_map_trains_with_rates_that_fall_by_layers(vit, camvid, tmp_path):
    crops = [f"data.{domain}.augment.crop=[32, 44]" for domain in ("source", "target")]
    recipe = recipe_of(camvid, vit | {"freeze": 1}, "ebda", "optim.layer_decay=0.5", *crops)
    train(recipe, tmp_path / "run")
    (*_, line) = runs.read_log(tmp_path / "run")
    rates = {name.removeprefix("lr/student/"): rate for name, rate in line.items() if name.startswith("lr/student/")}
    assert list(rates) == ["encoder/02", "encoder/03", "norm/02", "norm/03", "head"]
    assert rates["encoder/02"] == rates["encoder/03"] / 2 == rates["norm/02"] == rates["head"] / 2
    assert runs.load_network(tmp_path / "run").infer(images(1, 3, 37, 50)).shape == (1, 11, 37, 50)


# Rates of layers


def test_rates_fall_from_the_last_layer_to_the_stem(vit):
    network = built(vit)
    settings = AdamW(
        name="adamw", lr=1.0, power=1, head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.1, layer_decay=0.5
    )
    groups = optimiser(network.groups(), settings, network.layers()).param_groups
    found = {id(weight): (group["base_lr"], group["weight_decay"]) for group in groups for weight in group["params"]}
    assert len(found) == sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    encoder = network.encoder
    theirs = {
        encoder.mark: (0.125, 0.1), encoder.patch.weight: (0.125, 0.1), encoder.layer[0][1].weight: (0.25, 0.1),
        encoder.layer[0][0].weight: (0.25, 0.0), encoder.layer[2][3].bias: (1.0, 0.1), encoder.norm.weight: (1.0, 0.0),
        network.decoder.classify.bias: (10.0, 0.1), network.pyramid.twice.weight: (10.0, 0.1),
    }  # fmt: skip
    assert {weight: found[id(weight)] for weight in theirs} == theirs


def test_rates_of_layers_are_refused_where_nobody_says_what_layers_are():
    settings = AdamW(
        name="adamw", lr=1.0, power=1, head_lr_factor=10, betas=(0.9, 0.999), weight_decay=0.1, layer_decay=0.5
    )
    with pytest.raises(RecipeError, match="optim.layer_decay: has no effect: the network does not say"):
        optimiser({"head": [nn.Parameter(torch.zeros(1))]}, settings)


# Layers that do not learn


FREEZABLE = ("mit_daformer", "deeplab_v2", "resnet50_v1c", "dinov2_tiny", "dinov3_convnext_micro", "vfm")


def frozen_names(network: Network) -> set[str]:
    still = frozen_weights(network)
    return {name for name, weight in network.named_parameters() if weight in still}


@pytest.mark.parametrize("name", FREEZABLE)
@pytest.mark.parametrize("freeze", [True, 1, 3, 0, False])
def test_frozen_layers_are_in_no_group_and_keep_their_statistics(name, freeze):
    network, whole = built(SMALL[name] | {"freeze": freeze}), built(SMALL[name])
    frozen = frozen_names(network)
    learning = {id(weight) for group in network.groups().values() for weight in group}
    names = {id(weight): name for name, weight in network.named_parameters()}
    first = len(network.encoder.layers()) if freeze is True else freeze + 1 if freeze else 0
    expected = {id(w) for layer in network.encoder.layers()[:first] for part in layer for w in part.parameters()}
    assert frozen == {names[key] for key in expected}
    assert learning.isdisjoint(expected)
    assert len(learning) == sum(map(len, whole.groups().values())) - sum(
        weight.requires_grad for name, weight in whole.named_parameters() if name in frozen
    )
    assert all(network.groups().values()) and "head" in network.groups()
    before = copy.deepcopy(network.state_dict())
    network.train()
    network(images(2, 3, 48, 64)).logits.mean().backward()
    still = [module for part in network.encoder.still() for module in part.modules()]
    assert not any(module.training for module in still)
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    places = {name for name, module in network.named_modules() if module in still}
    assert not [name for name in moved if name.rpartition(".")[0] in places]
    assert all(weight.grad is None for name, weight in network.named_parameters() if name in frozen)


def test_a_frozen_teacher_normalises_with_what_it_knows_and_the_rest_with_the_batch():
    network = built(SMALL["resnet50_v1c"] | {"freeze": 3})
    teacher = Teacher(network, 0.9).train()
    norms = {name: module for name, module in teacher.network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    still = {name for name in norms if name.startswith(("encoder.stem", "encoder.stages.0"))}
    assert still and {name for name, norm in norms.items() if not norm.training} == still
    start = copy.deepcopy(teacher.state_dict())
    with torch.no_grad():
        for weight in network.parameters():
            if weight.requires_grad:
                weight.add_(0.1)
        network.encoder.stem[0].weight.mul_(1.0000001)  # as it never does: the teacher must not look
    teacher.follow(network, 5, ALONE)
    frozen = {f"network.{name}" for name in frozen_names(network)}
    for name, value in teacher.state_dict().items():
        if name in frozen:
            assert torch.equal(value, start[name]), name
    assert not torch.equal(teacher.state_dict()["network.decoder.classify.0.weight"],
                           start["network.decoder.classify.0.weight"])  # fmt: skip


@pytest.mark.parametrize("freeze", ["true", "2"])
def test_frozen_weights_do_not_move_by_a_bit_in_a_training_that_stops_and_goes_on(camvid, tmp_path, freeze):
    recipe = small_recipe(camvid, "ebda").override(
        f"network.freeze={freeze}", "evaluate.data=[]", "steps=3", "save_every=1"
    )

    class Killed(BaseException):
        pass

    def die():
        raise Killed

    training = assembly.assemble(recipe, camvid, None)
    frozen = frozen_names(training.method.student)
    start = copy.deepcopy(training.method.student.state_dict())
    assert frozen and "encoder.stages.0.patch_embeddings.proj.weight" in frozen
    train(recipe, tmp_path / "whole")
    for which in ("student", "teacher"):
        learnt = runs.load_network(tmp_path / "whole", which).state_dict()
        moved = {name for name in learnt if not torch.equal(learnt[name], start[name])}
        assert not moved & frozen
        assert "decoder.classify.weight" in moved and (freeze == "true") == (not any("encoder" in one for one in moved))
    lines = list(runs.read_log(tmp_path / "whole"))
    assert all("feature_distance" in line for line in lines)
    with pytest.raises(Killed), at(2, die):
        train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert same(tmp_path / "run", tmp_path / "whole")


def refused() -> Iterator[tuple[str, object, str]]:
    yield "mit_daformer", 5, "network.freeze: 5: encoder tiny has 4 blocks; give a number up to that, or true for all"
    yield "deeplab_v2", 9, "network.freeze: 9: encoder small has 8 blocks"
    yield "deeplab_v2", -1, "network.freeze: -1: encoder small has 8 blocks"
    yield "mit_daformer", "some", r"network.freeze: .*\(got 'some'\)"


@pytest.mark.parametrize(("name", "freeze", "said"), list(refused()))
def test_a_number_of_blocks_that_there_are_not_is_refused(name, freeze, said):
    with pytest.raises(RecipeError, match=said):
        built(SMALL[name] | {"freeze": freeze})


def test_imagenets_colours_are_those_of_every_row_but_caffes_and_the_lite_ones():
    others = {"small", "50", "101", "lite0", "lite1", "lite2"}
    assert {name for name, row in ENCODERS.items() if row.normalisation != IMAGENET} == others
