"""DINOv2 and DINOv3 against the classes of `transformers`, their files, and what networks must know of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from networks.test_encoders import built, images
from segda.errors import WeightsError
from segda.networks.encoders.dino import DINOv2, DINOv3, as_map
from segda.networks.encoders.encoder import Encoder, learning_layers
from segda.networks.encoders.table import ENCODERS
from segda.networks.weights.load import load_encoder_weights

SMALL = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 1}
"""Of the library's configurations, as our rows for tests have it."""


def published(name: str) -> nn.Module:
    """The library's own model of a row, with weights at random, all of them."""
    import transformers as library

    plain = SMALL | {"image_size": 112, "patch_size": 14}
    config, model = {
        "dinov2_tiny": (library.Dinov2Config(**plain), library.Dinov2Model),
        "dinov2_tiny_reg": (
            library.Dinov2WithRegistersConfig(**plain, num_register_tokens=2),
            library.Dinov2WithRegistersModel,
        ),
        "dinov3_tiny": (
            library.DINOv3ViTConfig(
                **SMALL, intermediate_size=256, num_register_tokens=2, use_gated_mlp=True, hidden_act="silu"
            ),
            library.DINOv3ViTModel,
        ),
        "dinov3_convnext_micro": (
            library.DINOv3ConvNextConfig(hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 2, 1]),
            library.DINOv3ConvNextModel,
        ),
    }[name]
    torch.manual_seed(1)
    theirs = model(config)
    for weight in theirs.parameters():
        nn.init.normal_(weight, std=0.2)
    return theirs.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders as the library saves them, each with the model that is in it."""
    folders: dict[str, tuple[Path, nn.Module]] = {}

    def of(name: str) -> tuple[Path, nn.Module]:
        if name not in folders:
            theirs, folder = published(name), tmp_path_factory.mktemp(name)
            theirs.save_pretrained(folder)
            folders[name] = folder, theirs
        return folders[name]

    return of


def encoder(name: str) -> Encoder:
    torch.manual_seed(0)
    return ENCODERS[name].build(name)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("dinov2_tiny", (112, 112)),  # its own grid; at others the library resamples otherwise than the authors
        ("dinov2_tiny_reg", (112, 112)),
        ("dinov2_tiny_reg", (56, 140)),
        ("dinov3_tiny", (64, 96)),
    ],
)
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_transformer_says_what_the_librarys_own_class_says(saved, name, size, training):
    """Also in training, where the library's DINOv3 stretches its coordinates at random."""
    folder, theirs = saved(name)
    ours = encoder(name).train(training)
    line = load_encoder_weights(ours, str(folder))
    assert "Hugging Face names" in line or name == "dinov3_tiny"
    assert "ignored" not in line
    image = images(2, 3, *size)
    (level,) = ours(image)
    patch = ENCODERS[name].multiple
    rows, columns = size[0] // patch, size[1] // patch
    tokens = theirs(image).last_hidden_state[:, -rows * columns :]
    torch.testing.assert_close(level, as_map(tokens, rows, columns), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_a_convnext_says_what_the_librarys_own_class_says(saved):
    folder, theirs = saved("dinov3_convnext_micro")
    ours = encoder("dinov3_convnext_micro")
    load_encoder_weights(ours, str(folder))
    image = images(2, 3, 64, 96)
    levels = ours(image)
    said = theirs(image, output_hidden_states=True)
    for level, other in zip(levels[:3], said.hidden_states[1:4], strict=True):
        torch.testing.assert_close(level, other, rtol=1e-5, atol=1e-5)
    last = as_map(said.last_hidden_state[:, 1:], 2, 3)
    torch.testing.assert_close(levels[-1], last, rtol=1e-5, atol=1e-5)


def of_torch_hub(tensors: dict[str, Tensor], depth: int) -> dict[str, Tensor]:
    """The library's tensors as facebookresearch/dinov2 names and stacks them."""
    found = {
        "cls_token": tensors["embeddings.cls_token"],
        "mask_token": tensors["embeddings.mask_token"],
        "register_tokens": tensors["embeddings.register_tokens"],
        "pos_embed": tensors["embeddings.position_embeddings"],
    }
    for part in ("weight", "bias"):
        found[f"patch_embed.proj.{part}"] = tensors[f"embeddings.patch_embeddings.projection.{part}"]
        found[f"norm.{part}"] = tensors[f"layernorm.{part}"]
        for k in range(depth):
            theirs = f"encoder.layer.{k}"
            stacked = [tensors[f"{theirs}.attention.attention.{one}.{part}"] for one in ("query", "key", "value")]
            found[f"blocks.{k}.attn.qkv.{part}"] = torch.cat(stacked)
            found[f"blocks.{k}.attn.proj.{part}"] = tensors[f"{theirs}.attention.output.dense.{part}"]
            for same in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"blocks.{k}.{same}.{part}"] = tensors[f"{theirs}.{same}.{part}"]
    for k in range(depth):
        for scale in (1, 2):
            found[f"blocks.{k}.ls{scale}.gamma"] = tensors[f"encoder.layer.{k}.layer_scale{scale}.lambda1"]
    return found


def test_a_file_of_torch_hub_is_read_like_the_librarys(saved, tmp_path):
    folder, _ = saved("dinov2_tiny_reg")
    torch.save(of_torch_hub(load_file(folder / "model.safetensors"), 4), tmp_path / "hub.pth")
    ours, other = encoder("dinov2_tiny_reg"), encoder("dinov2_tiny_reg")
    assert "torch hub names" in load_encoder_weights(ours, str(tmp_path / "hub.pth"))
    load_encoder_weights(other, str(folder))
    theirs = other.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


def test_a_file_of_another_size_is_refused_by_its_name(saved):
    folder, _ = saved("dinov2_tiny")
    with pytest.raises(WeightsError, match="it is a DINOv2-DINOV2_TINY file: set network.encoder: dinov2_tiny"):
        load_encoder_weights(encoder("dinov2_tiny_reg"), str(folder))


def test_a_file_that_lacks_a_tensor_is_refused(saved, tmp_path):
    folder, _ = saved("dinov3_tiny")
    tensors = load_file(folder / "model.safetensors")
    del tensors["layer.1.attention.k_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 tensors missing: layer\.1\.attention\.k_proj\.weight"):
        load_encoder_weights(encoder("dinov3_tiny"), str(tmp_path))


def test_images_that_another_normalisation_made_are_refused(saved, tmp_path):
    folder, _ = saved("dinov3_tiny")
    save_file(load_file(folder / "model.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    with pytest.raises(WeightsError, match="image_mean and image_std are not ImageNet's"):
        load_encoder_weights(encoder("dinov3_tiny"), str(tmp_path))


@pytest.mark.parametrize("name", ["dinov2_tiny", "dinov2_tiny_reg", "dinov3_tiny"])
@torch.no_grad()
def test_a_hidden_patch_says_nothing_of_its_colours(name):
    ours = encoder(name).eval()
    nn.init.normal_(ours.embeddings.mask_token)
    patch = ENCODERS[name].multiple
    image = images(1, 3, 3 * patch, 2 * patch)
    hidden = torch.zeros(1, 3, 2, dtype=torch.bool)
    hidden[0, 1, 0] = True
    other = image.clone()
    other[..., patch : 2 * patch, :patch] = 0
    assert not torch.equal(ours(image)[0], ours(other)[0])
    assert torch.equal(ours(image, hidden)[0], ours(other, hidden)[0])
    assert not torch.equal(ours(image)[0], ours(image, hidden)[0])


def test_the_mask_token_learns_only_where_it_is_told_to():
    ours = encoder("dinov2_tiny").train()
    token = ours.embeddings.mask_token
    assert not any(weight is token for layer in learning_layers(ours) for weight in layer)
    token.requires_grad_(True)
    image, hidden = images(1, 3, 28, 28), torch.tensor([[[True, False], [False, False]]])
    ours(image)[0].square().sum().backward()
    assert token.grad is not None and not token.grad.any()
    ours(image, hidden)[0].square().sum().backward()
    assert token.grad.any()


@pytest.mark.parametrize("kind", [DINOv2, DINOv3])
def test_a_start_is_a_function_of_torchs_seed(kind):
    name = {DINOv2: "dinov2_tiny_reg", DINOv3: "dinov3_tiny"}[kind]
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        states.append(kind(name).state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    weights = torch.cat([value.flatten() for key, value in states[0].items() if key.endswith("fc1.weight")] or [
        value.flatten() for key, value in states[0].items() if key.endswith("up_proj.weight")
    ])  # fmt: skip
    assert 0.015 < weights.std() < 0.02 and weights.abs().max() <= 0.04


@torch.no_grad()
def test_a_network_resizes_images_to_whole_patches():
    spec = {"encoder": "dinov2_tiny", "decoder": "segformer_64", "pyramid": "simple", "dropout": 0.1}
    network = built({"name": "encoder_decoder", "weights": "scratch"} | spec).eval()
    assert network.infer(images(1, 3, 33, 47)).shape == (1, 3, 33, 47)
    assert [level.shape[-2:] for level in network.features(images(1, 3, 33, 47))][2] == (2, 3)
