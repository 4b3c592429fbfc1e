"""Where a ResNet starts from: the authors' ImageNet file, torchvision's names, the hub's; and what must be refused.

What holds for every encoder (files, folders, the hub, pickles that execute) is in test_weights.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from segda.errors import WeightsError
from segda.networks import DeepLabV2
from segda.networks.encoders.resnet import ResNet
from segda.networks.weights.load import load_encoder_weights
from segda.run import save_network
from weight_files import prefixed, write


def encoder(name: str = "small", seed: int = 0) -> ResNet:
    """As after training: no two tensors of a shape are alike, so that a wrong name shows."""
    torch.manual_seed(seed)
    ours = ResNet(name)
    for value in ours.state_dict().values():
        value.copy_(torch.rand(value.shape) + 0.1 if value.is_floating_point() else torch.tensor(seed))
    return ours


def usual(ours: ResNet) -> dict[str, Tensor]:
    """The encoder's tensors as torchvision, timm and ADVENT name them, written out from their class."""
    tensors = {}

    def put(name: str, module) -> None:
        tensors.update({f"{name}.{key}": value for key, value in module.state_dict().items()})

    put("conv1", ours.conv1)
    put("bn1", ours.bn1)
    for s, stage in enumerate(ours.stages, start=1):
        for b, block in enumerate(stage):
            for i, (convolution, norm) in enumerate(
                ((block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)), start=1
            ):
                put(f"layer{s}.{b}.conv{i}", convolution)
                put(f"layer{s}.{b}.bn{i}", norm)
            if b == 0:
                put(f"layer{s}.{b}.downsample.0", block.shortcut[0])
                put(f"layer{s}.{b}.downsample.1", block.shortcut[1])
    return tensors


def without_counters(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}


OLD = {"conv2d_list.0.weight": torch.zeros(21, 512, 3, 3), "conv2d_list.0.bias": torch.zeros(21)}
CLASSIFIER = {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}

FILES = {
    "the authors' ImageNet file": (
        "DeepLab_resnet_pretrained_imagenet.pth",
        lambda ours: {**prefixed("Scale.", usual(ours)), **prefixed("Scale.layer5.", OLD)},
        "ignored 2 others (Scale: 2)",
    ),
    "torchvision": ("resnet.pth", lambda ours: {**usual(ours), **CLASSIFIER}, "ignored 2 others (fc: 2)"),
    "timm": ("model.safetensors", lambda ours: {**usual(ours), **CLASSIFIER}, "ignored 2 others (fc: 2)"),
    "older than the counters": ("resnet.pth", lambda ours: without_counters(usual(ours)), "145 tensors"),
    "a checkpoint of the authors": (
        "gta2cityscapes_advent.pth",
        lambda ours: {**prefixed("module.", usual(ours)), **prefixed("module.layer6.", OLD)},
        "ignored 2 others (module: 2)",
    ),
    "a backbone in a training checkpoint": (
        "iter_1.pth",
        lambda ours: {"meta": {"iter": 1}, "state_dict": prefixed("backbone.", usual(ours))},
        "174 tensors",
    ),
    "ours": ("encoder.safetensors", lambda ours: ours.state_dict(), "our names"),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_style_of_names_fills_the_encoder(kind, tmp_path):
    name, content, said = FILES[kind]
    theirs, ours = encoder(seed=3), encoder(seed=1)
    line = load_encoder_weights(ours, str(write(tmp_path / name, content(theirs))))
    for key, expected in theirs.state_dict().items():
        if key.endswith("num_batches_tracked") and kind == "older than the counters":
            expected = torch.tensor(1)  # stays as it was
        assert torch.equal(ours.state_dict()[key], expected), key
    assert said in line
    assert name in line


def test_what_transformers_saves_fills_the_encoder_and_gives_its_features(tmp_path):
    from transformers import ResNetConfig, ResNetForImageClassification

    torch.manual_seed(3)
    config = ResNetConfig(embedding_size=32, hidden_sizes=[64, 128, 256, 512], depths=[2, 2, 2, 2])
    theirs = ResNetForImageClassification(config).eval()
    for value in theirs.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape) + 0.5)  # norms, their statistics
    theirs.save_pretrained(tmp_path)
    ours = encoder().eval()
    line = load_encoder_weights(ours, str(tmp_path))
    assert "174 tensors" in line and "Hugging Face names; ignored 2 others (classifier: 2)" in line
    # Given our strides and dilations it must say what we say.
    theirs.resnet.embedder.pooler.ceil_mode = True
    settings = ((1, 1), (2, 1), (1, 2), (1, 4))
    for stage, (stride, dilation) in zip(theirs.resnet.encoder.stages, settings, strict=True):
        for place, block in enumerate(stage.layers):
            reduce, spatial = block.layer[0].convolution, block.layer[1].convolution
            reduce.stride = (stride if place == 0 else 1,) * 2
            spatial.stride, spatial.dilation, spatial.padding = (1, 1), (dilation,) * 2, (dilation,) * 2
        stage.layers[0].shortcut.convolution.stride = (stride, stride)
    image = torch.randn(1, 3, 62, 101, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.resnet(image, output_hidden_states=True).hidden_states[1:]
        for level, other in zip(ours(image), expected, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-4)


def test_the_network_starts_from_a_file_and_says_so_and_from_its_own_run(tmp_path):
    settings = {"encoder": "small", "multi_level": True, "aux_weight": 0.1}
    assert DeepLabV2(["road"], weights="scratch", **settings).origin == (
        "encoder small: random start (weights: scratch)"
    )
    file = write(tmp_path / "resnet.pth", usual(encoder(seed=3)))
    first = DeepLabV2(["road"], weights=str(file), **settings)
    assert first.origin == f"encoder small: 174 tensors from {file}, usual ResNet names"
    save_network(tmp_path / "run" / "network.safetensors", first, {"name": "deeplab_v2"}, 0)
    again = DeepLabV2(["road"], weights=str(tmp_path / "run"), **settings)
    assert "174 tensors" in again.origin and "ignored 18 others" in again.origin
    assert all(torch.equal(value, again.encoder.state_dict()[key]) for key, value in first.encoder.state_dict().items())


# Refused


def refused(where: Path, said: str) -> None:
    """`where` is an error in one line that says so, and the encoder is as it was."""
    ours = encoder()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(WeightsError, match=said) as caught:
        load_encoder_weights(ours, str(where))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


def changed(change) -> dict[str, Tensor]:
    tensors = usual(encoder())
    change(tensors)
    return tensors


REFUSED = [
    (lambda: usual(ResNet("50")), r"does not fit encoder small: .*; it is a ResNet-50 file: set network.encoder: 50"),
    (
        lambda: changed(lambda tensors: tensors.pop("layer3.1.bn2.running_var")),
        r"1 tensors missing: stages\.2\.1\.bn2\.running_var; is it the right file\?",
    ),
    (
        lambda: {name: tensor for name, tensor in usual(encoder()).items() if "conv3" not in name},
        r"8 tensors missing: stages\.0\.0\.conv3",
    ),
    (
        lambda: changed(lambda tensors: tensors["bn1.bias"].fill_(float("nan"))),
        r"1 tensors are not finite numbers: bn1\.bias",
    ),
    (
        lambda: changed(lambda tensors: tensors.update({"layer4.2.conv1.weight": torch.zeros(128, 512, 1, 1)})),
        r"1 tensors too many: stages\.3\.2\.conv1",
    ),
    (lambda: {"patch_embed1.proj.weight": torch.zeros(3)}, "holds no ResNet encoder; its first names are patch_embed1"),
    (lambda: {**usual(encoder()), **prefixed("Scale.", usual(encoder()))}, "there twice"),
]


@pytest.mark.parametrize(("tensors", "said"), REFUSED)
def test_weights_that_do_not_fit_are_refused(tensors, said, tmp_path):
    refused(write(tmp_path / "resnet.pth", tensors()), said)
