"""Every row of NETWORKS against the contract of networks. A new row needs small settings here, and is tested.

Of `encoder_decoder` there is every decoder, on the smallest Mix Transformer, and one encoder of each kind. All
are narrow.
"""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
import torch.nn.functional as F

from narrow import narrow
from segda.errors import DataError, RecipeError
from segda.networks import CHOICES, HRDA, NETWORKS, VFM
from segda.networks.encoder_decoder import DECODERS
from segda.networks.encoders.table import on_grid
from segda.networks.network import Network
from segda.parts.teacher import Teacher
from segda.recipes.build import build
from segda.run import fill, read_tensors, save_network
from segda.scene import crop

CLASSES = ("road", "sky", "car")

MIT = {"encoder": "tiny", "weights": "scratch", "channels": 8, "dilations": [1, 3], "dropout": 0.1, "drop_path": 0.1}
DEEPLAB = {"encoder": "small", "weights": "scratch"}
ANY = {"name": "encoder_decoder", "weights": "scratch"}
SMALL = {
    "mit_daformer": {"name": "mit_daformer", **MIT},
    "deeplab_v2": {"name": "deeplab_v2", **DEEPLAB, "multi_level": True, "aux_weight": 0.1},
    "deeplab_v2 of DANNet": {"name": "deeplab_v2", **DEEPLAB, "multi_level": False, "variant": "dannet"},
    "pspnet": {"name": "pspnet", "encoder": "resnet50_v1c", "weights": "scratch", "dropout": 0.1},
    "relit": {
        "name": "relit",
        "width": 2,
        "blocks": 1,
        "frequencies": None,
        "spread": None,
        "over": {"name": "deeplab_v2", **DEEPLAB, "multi_level": False},
    },
    "deeplab_v2 with one head": {"name": "deeplab_v2", **DEEPLAB, "multi_level": False},
    **{
        decoder: {**ANY, "encoder": "tiny", "decoder": decoder, "drop_path": 0.1}
        | ({"dropout": 0.1} if row.dropout else {})
        for decoder, row in DECODERS.items()
    },
    "hrda": {
        "name": "hrda", "box": [32, 32], "grid": 8, "context_scale": 0.5, "detail_weight": 0.1, "attention": "conv1",
        "attention_dropout": 0.1, "window_batch": 3, "over": {"name": "mit_daformer", **MIT},
    },
    "vfm": {"name": "vfm", "encoder": "dinov2_tiny", "decoder": "light", "weights": "scratch", "enlarge": 1.1,
            "mask_token": "learnt"},
    "vfm with an adapter": {"name": "vfm", "encoder": "dinov3_tiny", "decoder": "adapter", "weights": "scratch",
                            "enlarge": None},
    "vfm tuned by tokens": {"name": "vfm", "encoder": "dinov2_tiny_reg", "decoder": "light", "weights": "scratch",
                            "enlarge": None, "tune": "tokens", "tune_tokens": 5, "tune_rank": 3},
    "vfm tuned by lora": {"name": "vfm", "encoder": "dinov3_tiny", "decoder": "adapter", "weights": "scratch",
                          "enlarge": None, "tune": "lora", "tune_rank": 3},
    **{
        encoder: {**ANY, "encoder": encoder, "decoder": "deeplab_v2_reduced"}
        for encoder in ("resnet50_v1c", "resnext50_32x4d", "resnest50", "dinov3_convnext_micro")
    },
    **{
        encoder: {**ANY, "encoder": encoder, "decoder": "segformer_64", "pyramid": "simple", "dropout": 0.1}
        for encoder in ("dinov2_tiny", "dinov2_tiny_reg", "dinov3_tiny")
    },
}  # fmt: skip
"""Settings to build each network with; some in two variants."""

SIZES = [(64, 96), (65, 129), (62, 101), (48, 33)]
CASES = [
    (name, size)
    for name, settings in SMALL.items()
    for size in {"encoder_decoder": SIZES[-1:], "hrda": SIZES[:-1]}.get(settings["name"], SIZES)
]
"""Of the many of `encoder_decoder` at the smallest alone, which is odd, for the sake of time; of `hrda` without it."""


def at_every_size(fixture: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize((fixture, "size"), CASES, indirect=[fixture])


@cache
def built(name: str) -> Network:
    torch.manual_seed(0)
    with narrow():
        return build(NETWORKS, SMALL[name], "network", class_names=CLASSES).eval()


@pytest.fixture(params=SMALL)
def shown(request) -> Network:
    """A network in evaluation mode, for all tests that change nothing in it."""
    return built(request.param)


@pytest.fixture(params=SMALL)
def network(request) -> Network:
    """One of its own for each test, in training mode."""
    return copy.deepcopy(built(request.param)).train()


def refuse_boxes(network: Network) -> None:
    """Skips a network that sees a box in training, and all of an image in windows afterwards."""
    if isinstance(network, HRDA):
        pytest.skip("trains on a box; tests/conformance/hrda.py has its inference")


def large_enough(network: Network, height: int, width: int) -> tuple[int, int]:
    """That size, or twice as much for a network that sees half of it."""
    factor = 2 if isinstance(network, HRDA) else 1
    return factor * height, factor * width


def inside(network: Network, image: torch.Tensor) -> torch.Tensor:
    """The image as the encoder sees it, of a network that resizes what it gets."""
    return network.inside(image) if isinstance(network, VFM) else on_grid(image, getattr(network, "multiple", 1))


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_every_network_is_tested_here():
    assert {settings["name"] for settings in SMALL.values()} == set(NETWORKS) == set(CHOICES)


@at_every_size("network")
def test_heads_are_those_it_says_at_the_size_of_the_image(network, size):
    output = network(images(2, 3, *size))
    assert tuple(output.heads) == network.heads
    assert network.heads[0] == "main"
    for head in output.heads.values():
        assert head.logits.shape == (2, network.classes, *(size if head.box is None else head.box[2:]))
        assert head.logits.dtype == torch.float32
        assert head.weight > 0
    assert output.logits is output.heads["main"].logits


@at_every_size("shown")
@torch.no_grad()
def test_what_is_used_is_the_main_head_and_its_coarse_logits_upsampled(shown, size):
    refuse_boxes(shown)
    image = images(1, 3, *size)
    logits = shown.infer(image)
    torch.testing.assert_close(shown(image).logits, logits)
    theirs = F.interpolate(shown.low_res_logits(image), size, mode="bilinear", align_corners=shown.align_corners)
    torch.testing.assert_close(logits, theirs)


@torch.no_grad()
def test_a_teachers_answer_is_the_training_views_main_head_to_the_bit(shown):
    """Its dropout is off and its batch norm sees the batch, as in every self-training method."""
    refuse_boxes(shown)
    asked, viewed = Teacher(shown, 0.9).train(), Teacher(shown, 0.9).train()
    for precision in (torch.float32, torch.bfloat16):
        for size in ((48, 64), (65, 43)):
            image = images(2, 3, *size)
            with torch.autocast("cpu", precision, enabled=precision is not torch.float32):
                ours, theirs = asked(image), viewed.network(image).logits
            assert torch.equal(ours, theirs) and ours.dtype == torch.float32, (precision, size)
            assert ours.stride() == theirs.stride(), (precision, size)
        # What batch norm counts as well.
        theirs = viewed.state_dict()
        assert all(torch.equal(value, theirs[name]) for name, value in asked.state_dict().items()), precision


@at_every_size("shown")
@torch.no_grad()
def test_features_go_from_fine_to_coarse_and_are_what_forward_reports(shown, size):
    image = images(1, 3, *size)
    levels, reported = shown.features(image), shown(image).features
    cells = [level.shape[-2] * level.shape[-1] for level in levels]
    # A decoder's row may enlarge the deepest map.
    enlarge = getattr(shown, "enlarge", 1)
    cells[-1] /= enlarge**2
    assert cells == sorted(cells, reverse=True)
    seen = inside(shown, image).shape[-2:]
    for side, pixels in zip(levels[-1].shape[-2:], seen, strict=True):
        assert pixels / shown.stride <= side / enlarge <= pixels / shown.stride + 1
    assert all(torch.equal(one, other) for one, other in zip(levels, reported, strict=True))
    assert shown.decode(levels).shape[:2] == (1, shown.classes)


def test_groups_are_all_trainable_parameters_once(shown):
    groups = shown.groups()
    assert "head" in groups
    together = [id(parameter) for group in groups.values() for parameter in group]
    trainable = [id(parameter) for parameter in shown.parameters() if parameter.requires_grad]
    assert sorted(together) == sorted(trainable)
    assert all(groups.values())


def test_every_trainable_parameter_gets_a_finite_gradient(network):
    size = large_enough(network, 48, 64)
    output = network(images(2, 3, *size))
    # Not a plain sum: logits after batch norm would pass on a constant.
    weight = torch.randn(2, network.classes, *size, generator=torch.Generator().manual_seed(0))
    heads = output.heads.values()
    sum(head.weight * (head.logits * crop(weight, head.box)).mean() for head in heads).backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        else:
            assert parameter.grad is None, name


def test_the_fill_colour_is_a_colour(shown):
    assert len(shown.fill) == 3 and all(0 <= value <= 1 for value in shown.fill)


@torch.no_grad()
def test_saved_and_loaded_it_says_the_same(network, tmp_path):
    size = large_enough(network, 32, 48)
    network(images(2, 3, *size))  # running statistics other than the start's
    network.eval()
    spec = next(one for one in SMALL.values() if NETWORKS[one["name"]] is type(network))
    save_network(tmp_path / "network.safetensors", network, spec, step=3)
    other = copy.deepcopy(network)
    for parameter in other.parameters():
        parameter.fill_(0.5)
    fill(other, read_tensors(tmp_path / "network.safetensors"), tmp_path)
    image = images(1, 3, *size)
    assert torch.equal(network.infer(image), other.infer(image))


@pytest.mark.parametrize("name", [name for name, choices in CHOICES.items() if "encoder" in choices])
def test_an_unknown_encoder_is_named_with_what_there_is(name):
    with pytest.raises(
        RecipeError, match=r"network.encoder: unknown encoder 'zz9'.*known: .*" + CHOICES[name]["encoder"][0]
    ):
        settings = next(one for one in SMALL.values() if one["name"] == name)
        build(NETWORKS, settings | {"encoder": "zz9"}, "network", class_names=CLASSES)


def test_an_image_of_one_pixel_is_refused_with_its_size(shown):
    with pytest.raises(DataError, match="1 x 1 pixels"):
        shown.infer(images(1, 3, 1, 1))
