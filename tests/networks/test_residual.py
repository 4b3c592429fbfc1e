"""The dilated residual encoders: maps, dilations, start, gradients, weights from files."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from segda.errors import WeightsError
from segda.networks import EncoderDecoder
from segda.networks.encoders.residual import RESIDUALS, Block, Residual, SplitAttention
from segda.networks.weights.load import load_encoder_weights
from segda.run import save_network

KINDS = ("resnet50_v1c", "resnext50_32x4d", "resnest50")


@pytest.mark.parametrize("name", KINDS)
@torch.no_grad()
def test_maps_have_strides_4_and_8_rounded_up(name):
    cells = [tuple(level.shape[1:]) for level in Residual(name).eval()(torch.rand(1, 3, 65, 34))]
    assert cells == [(256, 17, 9), (512, 9, 5), (1024, 9, 5), (2048, 9, 5)]


@pytest.mark.parametrize("name", KINDS)
def test_the_first_block_of_a_dilated_stage_has_half_its_dilation(name):
    with torch.device("meta"):
        ours = Residual(name)
    dilations, strides = [], []
    for stage in ours.stages:
        convolutions = [block.conv2.conv if RESIDUALS[name].split else block.conv2 for block in stage]
        dilations.append([convolution.dilation[0] for convolution in convolutions])
        strides.append([convolution.stride[0] for convolution in convolutions])
        assert all(convolution.padding == convolution.dilation for convolution in convolutions)
    assert dilations == [[1] * 3, [1] * 4, [1, *[2] * 5], [2, 4, 4]]
    # ResNeSt pools instead.
    assert strides == [[1] * 3, [1 if RESIDUALS[name].split else 2, 1, 1, 1], [1] * 6, [1] * 3]


def test_the_start_is_mmsegmentations():
    torch.manual_seed(0)
    ours = Residual("resnest50")
    block = ours.stages[1][1]
    for convolution, fan_out in ((block.conv1, 128), (block.conv2.conv, 9 * 256), (block.conv2.excite, 256)):
        # torch's fan-out does not know of groups.
        assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    assert not block.conv2.excite.bias.any()
    weights = {name: value for name, value in ours.state_dict().items() if name.endswith(("bn1.weight", "bn3.weight"))}
    assert all(value.eq(0).all() if "bn3" in name else value.eq(1).all() for name, value in weights.items())


@torch.no_grad()
def test_split_attention_weighs_both_halves_by_what_the_whole_image_holds():
    torch.manual_seed(0)
    ours = SplitAttention(64, 2).double().eval()
    cells = torch.randn(2, 64, 5, 6, dtype=torch.float64)
    weight, half = ours.conv.weight, {}
    for part in range(2):  # each looks at its half of the channels and gives as many as there are
        group = weight[64 * part : 64 * (part + 1)]
        half[part] = F.conv2d(cells[:, 32 * part : 32 * (part + 1)], group, padding=2, dilation=2)
    halves = [part.relu() for part in ours.norm(torch.cat([half[0], half[1]], 1)).chunk(2, 1)]
    pooled = (halves[0] + halves[1]).mean((2, 3))
    squeezed = ours.squeeze_norm((pooled @ ours.squeeze.weight[:, :, 0, 0].T + ours.squeeze.bias)[:, :, None, None])
    scores = squeezed.relu()[:, :, 0, 0] @ ours.excite.weight[:, :, 0, 0].T + ours.excite.bias
    first = (scores[:, :64] - scores[:, 64:]).sigmoid()[:, :, None, None]
    torch.testing.assert_close(ours(cells), first * halves[0] + (1 - first) * halves[1])


@pytest.mark.parametrize(
    ("name", "planes", "dilation"), [("resnext50_32x4d", 64, 1), ("resnext50_32x4d", 256, 4), ("resnest50", 64, 2)]
)
def test_grouped_convolutions_have_float64s_gradients_in_bfloat16(name, planes, dilation):
    torch.manual_seed(0)
    block = Block(256, planes, RESIDUALS[name], 1, dilation, projected=True).bfloat16()
    convolution = block.conv2.conv if RESIDUALS[name].split else block.conv2
    convolution = convolution.to(memory_format=torch.channels_last)
    # As large as it takes for torch's dilated depthwise operator to be wrong in this type and memory format.
    pixels = torch.randn(2, convolution.in_channels, 64, 80).bfloat16().contiguous(memory_format=torch.channels_last)
    ours = convolution(pixels)
    upstream = torch.randn(ours.shape).bfloat16().contiguous(memory_format=torch.channels_last)
    weight = convolution.weight.detach().double().requires_grad_()
    shape = {"padding": dilation, "dilation": dilation, "groups": convolution.groups}
    (theirs,) = torch.autograd.grad(F.conv2d(pixels.double(), weight, **shape), weight, upstream.double())
    (gradient,) = torch.autograd.grad(ours, convolution.weight, upstream)
    torch.testing.assert_close(gradient.double(), theirs, rtol=0, atol=0.01 * theirs.abs().max().item())


def test_batch_norm_learns_with_the_encoder_and_there_is_no_group_without_decay():
    with torch.device("meta"):
        ours = EncoderDecoder(["road"], encoder="resnet50_v1c", decoder="deeplab_v2_reduced", weights="scratch")
    groups = ours.groups()
    assert list(groups) == ["encoder", "head"]
    known = {id(parameter) for parameter in groups["encoder"]}
    norms = [module for module in ours.encoder.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(id(parameter) in known and parameter.requires_grad for norm in norms for parameter in norm.parameters())


# Weights


def trained(name: str) -> Residual:
    """As after training: no two tensors of a shape are alike, so that a wrong name shows."""
    ours = Residual(name)
    for value in ours.state_dict().values():
        value.copy_(torch.rand(value.shape) + 0.1 if value.is_floating_point() else torch.tensor(3))
    return ours


def open_mmlab(ours: Residual) -> dict[str, Tensor]:
    """Its tensors by mmsegmentation's names, written out from the class."""
    tensors = {}

    def put(name: str, module: nn.Module) -> None:
        tensors.update({f"{name}.{key}": value for key, value in module.state_dict().items()})

    if RESIDUALS[ours.name].deep:
        put("stem", ours.stem)
    else:
        put("conv1", ours.stem[0])
        put("bn1", ours.stem[1])
    for s, stage in enumerate(ours.stages, start=1):
        for b, block in enumerate(stage):
            before = f"layer{s}.{b}"
            for part in ("conv1", "bn1", "conv3", "bn3"):
                put(f"{before}.{part}", getattr(block, part))
            if RESIDUALS[ours.name].split:
                inner = {"conv": "conv", "bn0": "norm", "fc1": "squeeze", "bn1": "squeeze_norm", "fc2": "excite"}
                for theirs, own in inner.items():
                    put(f"{before}.conv2.{theirs}", getattr(block.conv2, own))
            else:
                put(f"{before}.conv2", block.conv2)
                put(f"{before}.bn2", block.bn2)
            put(f"{before}.downsample", block.shortcut)
    return tensors


@pytest.mark.parametrize("name", KINDS)
def test_an_encoder_starts_from_an_open_mmlab_file(name, tmp_path):
    theirs, ours = trained(name), Residual(name)
    held = open_mmlab(theirs) | {"fc.weight": torch.zeros(10, 2048), "fc.bias": torch.zeros(10)}
    torch.save({"state_dict": held}, tmp_path / "theirs.pth")
    said = load_encoder_weights(ours, str(tmp_path / "theirs.pth"))
    assert said.startswith(f"encoder {name}: {len(theirs.state_dict())} tensors from")
    assert said.endswith("open-mmlab names; ignored 2 others (fc: 2)")
    assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def test_an_encoder_starts_from_a_network_of_ours(tmp_path):
    spec = {"encoder": "resnext50_32x4d", "decoder": "deeplab_v2_reduced"}
    theirs = EncoderDecoder(["road"], **spec, weights="scratch")
    file = tmp_path / "network.safetensors"
    save_network(file, theirs, {"name": "encoder_decoder", **spec}, step=1)
    ours = EncoderDecoder(["sky", "car"], **spec, weights=str(file))
    assert torch.equal(ours.encoder.stages[2][3].conv2.weight, theirs.encoder.stages[2][3].conv2.weight)
    assert "our names" in ours.origin


@pytest.mark.parametrize("name", KINDS)
def test_a_file_of_another_encoder_is_named(name, tmp_path):
    save_file(open_mmlab(Residual(name)), tmp_path / "theirs.safetensors")
    with torch.device("meta"):
        ours = Residual("resnet101_v1c")
    with pytest.raises(WeightsError, match=f"does not fit encoder resnet101_v1c: .* set network.encoder: {name}$"):
        load_encoder_weights(ours, str(tmp_path / "theirs.safetensors"))
