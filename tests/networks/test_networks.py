"""The networks: shapes, starts, gradients, stochastic depth. The authors' values: conformance/networks.py."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from segda.errors import DataError, RecipeError
from segda.networks import MiTDAFormer
from segda.networks.decoders.daformer import DilatedDepthwise, stacked, upsample
from segda.networks.dropout import DropPath
from segda.networks.encoders.mit import MiT

CLASSES = ("road", "sky", "car")


def network(**changes) -> MiTDAFormer:
    settings = {
        "encoder": "tiny",
        "weights": "scratch",
        "channels": 16,
        "dilations": (1, 6, 12, 18),
        "dropout": 0.1,
        "drop_path": 0.1,
    }
    torch.manual_seed(0)
    return MiTDAFormer(CLASSES, **{**settings, **changes})


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


# Sizes


@pytest.mark.parametrize(
    ("encoder", "theirs"),
    [
        ("b0", 3_319_392),
        ("b1", 13_151_424),
        ("b2", 24_196_288),
        ("b3", 44_072_128),
        ("b4", 60_842_688),
        ("b5", 81_443_008),
    ],
)
def test_an_encoder_has_as_many_parameters_as_the_authors(encoder, theirs):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in MiT(encoder, drop_path=0.1).parameters()) == theirs


def test_the_decoder_has_as_many_parameters_as_the_authors():
    with torch.device("meta"):
        ours = MiTDAFormer(
            [str(i) for i in range(19)],
            encoder="b5",
            weights="scratch",
            channels=256,
            dilations=(1, 6, 12, 18),
            dropout=0.1,
            drop_path=0.1,
        )
    assert sum(parameter.numel() for parameter in ours.decoder.parameters()) == 3_712_275


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (33, 47), (70, 101)])
def test_logits_have_the_size_of_the_image(size):
    ours = network().eval()
    image = images(1, 3, *size)
    with torch.no_grad():
        assert ours.infer(image).shape == (1, 3, *size)
        assert ours(image).logits.shape == (1, 3, *size)
        cells = [tuple(level.shape[1:]) for level in ours.features(image)]
    strides = {4: 16, 8: 32, 16: 64, 32: 96}
    assert cells == [(width, -(-size[0] // s), -(-size[1] // s)) for s, width in strides.items()]
    assert ours.stride == 32


def test_infer_is_the_decoded_features_brought_to_image_size():
    ours, image = network().eval(), images(2, 3, 64, 96)
    with torch.no_grad():
        logits = ours.decode(ours.features(image))
        assert logits.shape == (2, 3, 16, 24)
        theirs = F.interpolate(logits, scale_factor=4, mode="bilinear", align_corners=False)
        torch.testing.assert_close(ours.infer(image), theirs)
        torch.testing.assert_close(ours(image).logits, theirs)


def test_logits_are_float32_also_when_the_network_computes_in_bfloat16():
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        output = network().eval()(images(1, 3, 32, 32))
    assert output.logits.dtype == torch.float32


def test_an_image_without_room_for_a_cell_is_refused_with_its_size():
    with pytest.raises(DataError, match="31 x 64"):
        network().infer(images(1, 3, 31, 64))


# Normalisation


def test_the_network_normalises_with_imagenets_statistics():
    ours, raw = network().eval(), np.random.default_rng(0).integers(0, 256, (1, 3, 32, 32))
    mean, deviation = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    theirs = torch.from_numpy((raw - mean[:, None, None]) / deviation[:, None, None]).float()
    with torch.no_grad():
        for level, expected in zip(
            ours.features(torch.from_numpy(raw / 255).float()), ours.encoder(theirs), strict=True
        ):
            torch.testing.assert_close(level, expected, rtol=1e-4, atol=1e-5)


def test_a_pixel_of_the_fill_colour_is_zero_to_the_encoder():
    ours = network().eval()
    seen = []
    ours.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    ours.infer(torch.tensor(ours.fill).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    assert seen[0].abs().max() < 1e-6


# The random start


def test_the_start_is_a_function_of_the_seed():
    ours, again = network().state_dict(), network().state_dict()
    assert all(torch.equal(ours[name], again[name]) for name in ours)
    torch.manual_seed(1)
    other = MiT("tiny", drop_path=0.1).state_dict()
    assert not torch.equal(
        other["stages.0.patch_embeddings.proj.weight"], ours["encoder.stages.0.patch_embeddings.proj.weight"]
    )


def test_the_encoder_starts_as_the_authors_do():
    torch.manual_seed(0)
    stage = MiT("b0", drop_path=0.1).stages[2]
    block = stage.blocks[0]
    spread = {
        block.attention.q_proj: 0.02,
        block.mlp.fc1: 0.02,
        stage.patch_embeddings.proj: (2 / (3 * 3 * 160)) ** 0.5,
        block.mlp.dwconv.dwconv: (2 / (3 * 3)) ** 0.5,
        block.attention.sequence_reduction.sequence_reduction: (2 / (2 * 2 * 160)) ** 0.5,
    }
    for module, deviation in spread.items():
        assert module.weight.std().item() == pytest.approx(deviation, rel=0.05)
        assert not module.bias.any()
    assert (block.layernorm_before.weight == 1).all()
    assert not block.layernorm_before.bias.any()


def test_the_decoder_starts_as_the_authors_do():
    torch.manual_seed(0)
    decoder = network(channels=64).decoder
    spread = {
        decoder.branches[0][0]: (2 / 64) ** 0.5,
        decoder.branches[1][0][0]: (2 / (9 * 256)) ** 0.5,  # torch's fan-out does not know of groups
        decoder.fuse[0]: (2 / (9 * 64)) ** 0.5,
        decoder.classify: 0.01,
    }
    for module, deviation in spread.items():
        assert module.weight.std().item() == pytest.approx(deviation, rel=0.15)
    assert not decoder.classify.bias.any()
    assert decoder.branches[0][0].bias is None


# Gradients


def test_every_parameter_gets_a_gradient():
    ours = network(drop_path=0.0)
    # Not a plain sum: logits after batch norm would pass on a constant.
    weight = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    (ours(images(2, 3, 64, 96)).logits * weight).mean().backward()
    without = [name for name, parameter in ours.named_parameters() if parameter.grad is None]
    zero = [name for name, parameter in ours.named_parameters() if not parameter.grad.any()]
    assert (without, zero) == ([], [])


def test_groups_are_all_parameters_once():
    ours = network()
    groups = ours.groups()
    assert list(groups) == ["encoder", "norm", "head"]
    together = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(together) == sorted(id(parameter) for parameter in ours.parameters())


def test_bfloat16_gradients_point_where_float32_ones_do():
    image, weight = (
        images(2, 3, 64, 96),
        torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)),
    )
    gradients = []
    for enabled in (False, True):
        ours = network(dropout=0.0, drop_path=0.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            logits = ours(image).logits
        (logits.float() * weight).mean().backward()
        gradients.append({name: parameter.grad.flatten() for name, parameter in ours.named_parameters()})
    theirs, halved = gradients
    cosine = {
        name: F.cosine_similarity(halved[name], theirs[name], dim=0).item()
        for name in theirs
        # Softmax does not see a constant in the keys: this gradient is rounding noise.
        if not name.endswith("k_proj.bias")
    }
    worst = min(cosine, key=cosine.get)
    assert cosine[worst] > 0.8, (worst, cosine[worst])


@pytest.mark.parametrize(("size", "dilation"), [((12, 12), 6), ((13, 20), 6), ((7, 5), 12), ((1, 3), 2), ((9, 9), 1)])
def test_a_dilated_depthwise_convolution_is_torchs(size, dilation):
    torch.manual_seed(0)
    ours = DilatedDepthwise(5, dilation).double()
    pixels = torch.randn(2, 5, *size, dtype=torch.float64, requires_grad=True)
    theirs = F.conv2d(pixels, ours.weight, padding=dilation, dilation=dilation, groups=5)
    torch.testing.assert_close(ours(pixels), theirs)
    upstream = torch.randn_like(theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours(pixels), (pixels, ours.weight), upstream),
        torch.autograd.grad(theirs, (pixels, ours.weight), upstream),
    )


@pytest.mark.parametrize("dilation", [6, 18])
def test_a_dilated_depthwise_convolution_has_torchs_gradient_in_bfloat16(dilation):
    torch.manual_seed(0)
    ours = DilatedDepthwise(16, dilation).bfloat16()
    # As large as it takes to make torch's own dilated operator wrong in this type and memory format.
    pixels = torch.randn(2, 16, 64, 80).bfloat16().contiguous(memory_format=torch.channels_last)
    upstream = torch.randn_like(pixels)
    weight = ours.weight.detach().double().requires_grad_()
    exact = F.conv2d(pixels.double(), weight, padding=dilation, dilation=dilation, groups=16)
    (theirs,) = torch.autograd.grad(exact, weight, upstream.double())
    (gradient,) = torch.autograd.grad(ours(pixels), ours.weight, upstream)
    torch.testing.assert_close(gradient.double(), theirs, rtol=0, atol=0.01 * theirs.abs().max().item())


# Layer norms, stochastic depth


class Upsamplings(TorchDispatchMode):
    """Whether the gradient of each upsampling comes in one piece, as numbers side by side in memory."""

    def __init__(self):
        super().__init__()
        self.whole = []

    def __torch_dispatch__(self, operator, types, arguments=(), named=None):
        if operator is torch.ops.aten.upsample_bilinear2d_backward.default:
            self.whole.append(arguments[0].is_contiguous(memory_format=torch.channels_last))
        return operator(*arguments, **(named or {}))


def test_the_gradient_of_a_stacked_level_comes_in_one_piece_and_is_what_it_was():
    levels = [torch.randn(2, 8, 16 // k, 16 // k).bfloat16().contiguous(memory_format=torch.channels_last)
              for k in (1, 2, 4)]  # fmt: skip
    upstream = torch.randn(2, 24, 16, 16).bfloat16().contiguous(memory_format=torch.channels_last)

    def gradients(stack):
        given = [level.clone().requires_grad_() for level in levels]
        with Upsamplings() as seen:
            found = torch.autograd.grad(stack(given), given, upstream)
        return found, seen.whole

    ours, whole = gradients(stacked)
    theirs, _ = gradients(lambda given: torch.cat([given[0], *(upsample(one, (16, 16)) for one in given[1:])], 1))
    assert whole == [True, True] and all(map(torch.equal, ours, theirs))


def test_layer_norms_have_the_authors_eps():
    for name, module in MiT("b1", drop_path=0.1).named_modules():
        if isinstance(module, nn.LayerNorm):
            small = "patch_embeddings" in name or "sequence_reduction" in name
            assert module.eps == (1e-5 if small else 1e-6), name


def test_stochastic_depth_grows_linearly_over_all_blocks():
    rates = [module.p for module in MiT("b0", drop_path=0.1).modules() if isinstance(module, DropPath)]
    np.testing.assert_allclose(rates, np.linspace(0, 0.1, 8))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dropped_path_is_dropped_for_a_whole_sample_and_else_scaled(dtype):
    torch.manual_seed(0)
    ours = DropPath(0.01)(torch.ones(40_000, 2, 3, dtype=dtype))
    dropped = (ours == 0).all((1, 2))
    # Three standard deviations of a binomial; in bfloat16 a draw of that type would be wrong by more.
    assert dropped.float().mean().item() == pytest.approx(0.01, abs=3 * (0.01 * 0.99 / 40_000) ** 0.5)
    torch.testing.assert_close(ours[~dropped], torch.full_like(ours[~dropped], 1 / 0.99))


def test_attention_and_mlp_of_a_block_are_dropped_independently():
    torch.manual_seed(0)
    last = list(MiT("tiny", drop_path=0.5).stages)[-1]
    drawn = []
    last.blocks[0].drop_path.register_forward_hook(lambda *call: drawn.append(call[2].abs().sum((1, 2)) == 0))
    last(torch.randn(400, 64, 2, 2))
    attention, mlp = (branch.float() for branch in drawn)
    assert attention.mean().item() == pytest.approx(0.5, abs=0.1)
    assert mlp.mean().item() == pytest.approx(0.5, abs=0.1)
    assert (attention * mlp).mean().item() == pytest.approx(0.25, abs=0.1)


def test_nothing_is_drawn_in_evaluation():
    ours, image = network(drop_path=0.5, dropout=0.5).eval(), images(2, 3, 64, 64)
    with torch.no_grad():
        state = torch.get_rng_state()
        assert torch.equal(ours.infer(image), ours.infer(image))
        assert torch.equal(state, torch.get_rng_state())
        ours.train()
        assert not torch.equal(ours(image).logits, ours(image).logits)


# Saved, copied, refused


def test_saved_tensors_make_the_same_network():
    ours, image = network().eval(), images(1, 3, 32, 64)
    saved = save(ours.state_dict())
    theirs = copy.deepcopy(ours)
    for parameter in theirs.parameters():
        nn.init.constant_(parameter, 0.5)
    theirs.load_state_dict(load(saved))
    with torch.no_grad():
        assert torch.equal(ours.infer(image), theirs.infer(image))


def test_tensors_of_another_class_count_do_not_load():
    saved = network().state_dict()
    with pytest.raises(RuntimeError, match=r"decoder\.classify"):
        MiTDAFormer(
            ("road", "sky"),
            encoder="tiny",
            weights="scratch",
            channels=16,
            dilations=(1, 6, 12, 18),
            dropout=0.1,
            drop_path=0.1,
        ).load_state_dict(saved)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": "b6"}, "'b6'; known: b0, b1"),
        ({"encoder": "tinny"}, "did you mean 'tiny'"),
        ({"channels": 0}, "channels 0"),
        ({"dilations": ()}, r"dilations \[\]"),
        ({"dilations": (1, 0)}, r"dilations \[1, 0\]"),
        ({"dropout": 1.0}, "network.dropout: 1.0"),
        ({"drop_path": -0.1}, "network.drop_path: -0.1"),
    ],
)
def test_a_setting_that_makes_no_sense_is_named(changes, said):
    with pytest.raises(RecipeError, match=said):
        network(**changes)
