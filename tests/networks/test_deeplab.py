"""DeepLab-v2 and its ResNets: layout, normalisation, statistics, precision. Recorded values: conformance/deeplab.py."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from segda.errors import DataError, RecipeError
from segda.networks import DeepLabV2
from segda.networks.deeplab import DILATIONS, Classifier
from segda.networks.encoders.resnet import ResNet, frozen_norm

CLASSES = ("road", "sky", "car")
LAST = torch.channels_last


def network(**changes) -> DeepLabV2:
    torch.manual_seed(0)
    return DeepLabV2(
        CLASSES, **{"encoder": "small", "weights": "scratch", "multi_level": True, "aux_weight": 0.1} | changes
    )


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def normal(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Layout


@pytest.mark.parametrize(
    ("size", "quarter", "eighth"),
    [
        ((512, 1024), (129, 257), (65, 129)),
        ((720, 1280), (181, 321), (91, 161)),
        ((65, 129), (17, 33), (9, 17)),
        ((62, 101), (16, 26), (8, 13)),
        ((8, 9), (3, 3), (2, 2)),
    ],
)
def test_maps_have_the_sizes_of_the_authors(size, quarter, eighth):
    encoder = ResNet("small").eval()
    with torch.no_grad():
        cells = [tuple(level.shape[1:]) for level in encoder(torch.zeros(1, 3, *size))]
    assert cells == [(64, *quarter), (128, *eighth), (256, *eighth), (512, *eighth)]


@pytest.mark.parametrize(("name", "theirs"), [("50", 25_557_032), ("101", 44_549_160)])
def test_an_encoder_has_as_many_parameters_as_the_published_resnet_without_its_classifier(name, theirs):
    assert sum(parameter.numel() for parameter in ResNet(name).parameters()) == theirs - 2048 * 1000 - 1000


def test_strides_and_dilations_are_where_the_authors_have_them():
    encoder = ResNet("50")
    for stage, (stride, dilation) in zip(encoder.stages, ((1, 1), (2, 1), (1, 2), (1, 4)), strict=True):
        for place, block in enumerate(stage):
            assert block.conv1.stride == (stride if place == 0 else 1,) * 2
            assert (block.conv2.stride, block.conv2.dilation) == ((1, 1), (dilation, dilation))
            assert len(block.shortcut) == (2 if place == 0 else 0)
        assert stage[0].shortcut[0].stride == (stride, stride)
    assert all(part.bias is None for part in encoder.modules() if isinstance(part, nn.Conv2d))


def test_quotes_around_the_encoders_number_are_not_needed():
    assert network(encoder=50).encoder.name == network(encoder="50").encoder.name == "50"


def test_a_single_level_has_one_head_and_no_weight_for_another():
    ours = network(multi_level=False, aux_weight=None)
    output = ours(images(1, 3, 32, 32))
    assert list(output.heads) == list(ours.heads) == ["main"]
    assert not any("aux" in name for name in ours.state_dict())
    both = network()(images(1, 3, 32, 32)).heads
    assert {name: head.weight for name, head in both.items()} == {"main": 1.0, "aux": 0.1}


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 17), (33, 40)])
def test_a_head_is_the_sum_of_four_dilated_convolutions(size):
    torch.manual_seed(0)
    ours = Classifier(5, 3, DILATIONS).double()
    cells = normal(2, 5, *size).double().requires_grad_()
    theirs = sum(
        F.conv2d(cells, branch.weight, branch.bias, padding=dilation, dilation=dilation)
        for branch, dilation in zip(ours, (6, 12, 18, 24), strict=True)
    )
    torch.testing.assert_close(ours(cells), theirs)
    upstream = normal(*theirs.shape, seed=3).double()
    wanted = (cells, *ours.parameters())
    torch.testing.assert_close(
        torch.autograd.grad(ours(cells), wanted, upstream), torch.autograd.grad(theirs, wanted, upstream)
    )


def test_the_main_head_sees_the_last_stage_and_the_auxiliary_one_the_third():
    ours, image = network().eval(), images(1, 3, 40, 48)
    with torch.no_grad():
        levels = ours.features(image)
        output = ours(image)
        for head, level in (("main", 3), ("aux", 2)):
            cells = ours.classifiers[head](levels[level])
            theirs = F.interpolate(cells, (40, 48), mode="bilinear", align_corners=True)
            torch.testing.assert_close(output.heads[head].logits, theirs)
            # Corners aligned: a corner's pixel is the corner's cell.
            torch.testing.assert_close(output.heads[head].logits[..., -1, -1], cells[..., -1, -1])


# Normalisation


def test_the_network_sees_blue_green_red_less_caffes_mean():
    raw = np.random.default_rng(0).integers(0, 256, (1, 3, 16, 16))
    blue_green_red = raw[:, ::-1] - np.array([104.00698793, 116.66876762, 122.67891434])[:, None, None]
    ours, seen = network().eval(), []
    ours.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours.infer(torch.from_numpy(raw / 255).float())
    np.testing.assert_allclose(seen[0].numpy(), blue_green_red, rtol=0, atol=3e-5)


def test_a_pixel_of_the_fill_colour_is_zero_to_the_encoder():
    ours, seen = network().eval(), []
    ours.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours.infer(torch.tensor(ours.fill).view(1, 3, 1, 1).expand(1, 3, 16, 16))
    assert seen[0].abs().max() < 3e-5


# Batch norm


def test_batch_norm_is_not_trained_but_its_statistics_are_live():
    ours, image = network(), images(1, 3, 32, 40)
    norms = [part for part in ours.modules() if isinstance(part, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in norms]
    for _ in range(2):
        ours(image).logits.square().mean().backward()
    assert all(norm.weight.grad is None and norm.bias.grad is None for norm in norms)
    assert all(not norm.weight.requires_grad and not norm.bias.requires_grad for norm in norms)
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}
    assert not any(torch.equal(norm.running_mean, start) for norm, start in zip(norms, before, strict=True))
    with torch.no_grad():
        live = ours(image).logits
        running = ours.eval()(image).logits
    assert not torch.allclose(live, running), "in training an image is normalised by its own statistics"
    assert {int(norm.num_batches_tracked) for norm in norms} == {3}, "evaluation counts nothing"


def test_statistics_of_bfloat16_maps_are_as_good_as_float32():
    norm, cells = frozen_norm(8), (100 + normal(1, 8, 65, 129)).bfloat16().contiguous(memory_format=LAST)
    normalised = norm(cells)
    exact = cells.double()
    variance = exact.var((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, 0.1 * exact.mean((0, 2, 3)).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(norm.running_var, 0.9 + 0.1 * variance.float(), rtol=1e-4, atol=0)
    theirs = F.batch_norm(exact, None, None, training=True)
    torch.testing.assert_close(normalised.double(), theirs, rtol=2**-8, atol=1e-3)


# The random start


def test_the_start_is_the_authors_and_a_function_of_the_seed():
    ours, again = network(encoder="50"), network(encoder="50")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in ours.state_dict().items())
    for name, part in ours.named_modules():
        if isinstance(part, nn.Conv2d):
            deviation = part.weight.std().item()
            assert deviation == pytest.approx(0.01, rel=5 / (2 * part.weight.numel()) ** 0.5), name
    for branch in ours.classifiers["main"]:
        bound = (9 * 2048) ** -0.5
        assert branch.bias.abs().max() <= bound
        assert branch.bias.any()


# Precision and memory


@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("size", [(24, 32), (33, 65), (65, 129)])
def test_a_stages_dilated_convolutions_have_their_gradients_in_bfloat16_with_channels_last(size, dilation):
    # Those of depthwise convolutions do not, in torch 2.13 (networks/decoders/daformer.py).
    pixels = normal(1, 32, *size).bfloat16()
    weight = (0.1 * normal(32, 32, 3, 3, seed=3)).bfloat16()
    upstream = normal(1, 32, *size, seed=4).bfloat16()

    def computed(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        pixels, weight, upstream = tensors
        pixels, weight = pixels.requires_grad_(), weight.requires_grad_()
        found = F.conv2d(pixels, weight, padding=dilation, dilation=dilation)
        return found, *torch.autograd.grad(found, (pixels, weight), upstream)

    ours = computed(*(tensor.contiguous(memory_format=LAST) for tensor in (pixels, weight, upstream)))
    theirs = computed(pixels.double(), weight.double(), upstream.double())
    for found, exact in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found.double(), exact, rtol=0, atol=0.01 * exact.abs().max().item())


@pytest.mark.parametrize("size", [(24, 32), (65, 129)])
def test_a_head_has_its_gradients_in_bfloat16(size):
    torch.manual_seed(0)
    ours = Classifier(32, 19, DILATIONS)
    cells = normal(1, 32, *size).bfloat16().contiguous(memory_format=LAST).requires_grad_()
    upstream = normal(1, 19, *size, seed=3)
    with torch.autocast("cpu", torch.bfloat16):
        logits = ours(cells)
    assert logits.dtype == torch.float32
    found = (logits, *torch.autograd.grad(logits, (cells, *ours.parameters()), upstream))
    exact = copy.deepcopy(ours).double()
    pixels = cells.detach().double().requires_grad_()
    # The weights as autocast sees them.
    rounded = [branch.weight.detach().bfloat16().double().requires_grad_() for branch in exact]
    logits = sum(
        F.conv2d(pixels, weight, branch.bias, padding=branch.dilation, dilation=branch.dilation)
        for branch, weight in zip(exact, rounded, strict=True)
    )
    wanted = [one for branch, weight in zip(exact, rounded, strict=True) for one in (weight, branch.bias)]
    theirs = (logits, *torch.autograd.grad(logits, (pixels, *wanted), upstream.double()))
    for place, (one, other) in enumerate(zip(found, theirs, strict=True)):
        # Logits: each tap is rounded, 2^-9, and no more. Summed up in bfloat16 they would be off by 0.006.
        allowed = 0.01 if place else 0.0035
        torch.testing.assert_close(one.double(), other, rtol=0, atol=allowed * other.abs().max().item())


def test_bfloat16_gradients_point_where_float32_ones_do():
    image, weight = images(2, 3, 64, 96), normal(2, 3, 64, 96)
    gradients = []
    for enabled in (False, True):
        ours = network()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = ours(image)
        assert output.logits.dtype == output.heads["aux"].logits.dtype == torch.float32
        sum((head.logits * weight).mean() for head in output.heads.values()).backward()
        gradients.append({name: one.grad.flatten() for name, one in ours.named_parameters() if one.requires_grad})
    theirs, halved = gradients
    cosine = {name: F.cosine_similarity(halved[name], theirs[name], dim=0).item() for name in theirs}
    worst = min(cosine, key=cosine.get)
    # Rounding alone makes 0.7 of it at a random start (float32 with every convolution and norm rounded to bfloat16):
    # each ReLU close to 0 may flip. A wrong gradient, as of a faulty operator, would be near 0.
    assert cosine[worst] > 0.5, (worst, cosine[worst])


def test_memory_is_channels_last_from_the_start_also_in_a_copy_and_after_loading():
    ours = network()
    ours.load_state_dict({name: tensor.contiguous() for name, tensor in ours.state_dict().items()})
    for one in (ours, copy.deepcopy(ours)):
        inside = one.encoder.stages[2][0].conv2.weight
        assert inside.is_contiguous(memory_format=LAST) and not inside.is_contiguous()
        assert one.features(images(1, 3, 32, 48))[-1].is_contiguous(memory_format=LAST)


# Refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "102"}, "unknown encoder '102'; did you mean '101'"),
        ({"encoder": 18}, "unknown encoder '18'; known: 101, 50, small"),
        ({"aux_weight": None}, "multi_level: true needs it"),
        ({"multi_level": False}, "remove it, or set multi_level: true"),
        ({"aux_weight": 0.0}, r"aux_weight: 0.0 is not above 0"),
        ({"aux_weight": float("nan")}, r"aux_weight: nan is not above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(changes, said):
    with pytest.raises(RecipeError, match=said):
        network(**changes)


def test_an_image_without_room_for_two_cells_is_refused_with_its_size():
    network()(images(1, 3, 8, 8))
    with pytest.raises(DataError, match="7 x 64"):
        network().infer(images(1, 3, 7, 64))
