"""Where an encoder starts from: every style of names, and every file that must be refused."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from segda.errors import WeightsError
from segda.ground.trust import trusting
from segda.networks import MiTDAFormer
from segda.networks.encoders.mit import MiT
from segda.networks.weights.load import load_encoder_weights
from weight_files import prefixed, write


def encoder(name: str = "tiny", seed: int = 0) -> MiT:
    torch.manual_seed(seed)
    return MiT(name, drop_path=0.1)


def official(ours: MiT) -> dict[str, Tensor]:
    """The encoder's tensors as the authors of SegFormer name them, written out from their class."""
    tensors = {}

    def put(name: str, module) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = module.weight.data, module.bias.data

    for s, stage in enumerate(ours.stages, start=1):
        put(f"patch_embed{s}.proj", stage.patch_embeddings.proj)
        put(f"patch_embed{s}.norm", stage.patch_embeddings.layer_norm)
        for b, block in enumerate(stage.blocks):
            put(f"block{s}.{b}.norm1", block.layernorm_before)
            put(f"block{s}.{b}.attn.q", block.attention.q_proj)
            key, value = block.attention.k_proj, block.attention.v_proj
            tensors[f"block{s}.{b}.attn.kv.weight"] = torch.cat([key.weight.data, value.weight.data])
            tensors[f"block{s}.{b}.attn.kv.bias"] = torch.cat([key.bias.data, value.bias.data])
            put(f"block{s}.{b}.attn.proj", block.attention.o_proj)
            if s < 4:
                put(f"block{s}.{b}.attn.sr", block.attention.sequence_reduction.sequence_reduction)
                put(f"block{s}.{b}.attn.norm", block.attention.sequence_reduction.layer_norm)
            put(f"block{s}.{b}.norm2", block.layernorm_after)
            put(f"block{s}.{b}.mlp.fc1", block.mlp.fc1)
            put(f"block{s}.{b}.mlp.dwconv.dwconv", block.mlp.dwconv.dwconv)
            put(f"block{s}.{b}.mlp.fc2", block.mlp.fc2)
        put(f"norm{s}", stage.layer_norm)
    return tensors


def published(ours: MiT) -> dict[str, Tensor]:
    """The same as in nvidia/mit-b0 on the Hugging Face hub, without prefix."""
    tensors = {}

    def put(name: str, module) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = module.weight.data, module.bias.data

    for s, stage in enumerate(ours.stages):
        put(f"encoder.patch_embeddings.{s}.proj", stage.patch_embeddings.proj)
        put(f"encoder.patch_embeddings.{s}.layer_norm", stage.patch_embeddings.layer_norm)
        for b, block in enumerate(stage.blocks):
            place = f"encoder.block.{s}.{b}"
            put(f"{place}.layer_norm_1", block.layernorm_before)
            put(f"{place}.attention.self.query", block.attention.q_proj)
            put(f"{place}.attention.self.key", block.attention.k_proj)
            put(f"{place}.attention.self.value", block.attention.v_proj)
            if s < 3:
                put(f"{place}.attention.self.sr", block.attention.sequence_reduction.sequence_reduction)
                put(f"{place}.attention.self.layer_norm", block.attention.sequence_reduction.layer_norm)
            put(f"{place}.attention.output.dense", block.attention.o_proj)
            put(f"{place}.layer_norm_2", block.layernorm_after)
            put(f"{place}.mlp.dense1", block.mlp.fc1)
            put(f"{place}.mlp.dwconv.dwconv", block.mlp.dwconv.dwconv)
            put(f"{place}.mlp.dense2", block.mlp.fc2)
        put(f"encoder.layer_norm.{s}", stage.layer_norm)
    return tensors


def random_biases(ours: MiT) -> MiT:
    """As after training: no two tensors of a shape are alike, so that a wrong name shows."""
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
    return ours


HEAD = {"weight": torch.zeros(2, 96), "bias": torch.zeros(2)}

FILES = {
    "official": (
        "mit.pth",
        lambda ours: {**official(ours), **prefixed("head.", HEAD)},
        "ignored 2 others (head: 2)",
    ),
    "official in a training checkpoint": (
        "iter_40000.pth",
        lambda ours: {
            "meta": {"iter": 40000, "hook_msgs": {"best_score": np.float64(0.68)}},
            "state_dict": {
                **prefixed("backbone.", official(ours)),
                **prefixed("decode_head.conv_seg.", HEAD),
            },
        },
        "ignored 2 others (decode_head: 2)",
    ),
    "official in a published checkpoint": ("mit.pth", lambda ours: {"model": official(ours)}, "100 tensors"),
    "official beside a teacher": (
        "iter_1.pt",
        lambda ours: {
            **prefixed("model.backbone.", official(ours)),
            **prefixed("ema_model.backbone.", official(encoder(seed=7))),
        },
        "ignored 100 others (ema_model: 100)",
    ),
    "published": (
        "model.safetensors",
        lambda ours: {**prefixed("segformer.", published(ours)), **prefixed("classifier.", HEAD)},
        "ignored 2 others (classifier: 2)",
    ),
    "published without prefix": ("pytorch_model.bin", published, "108 tensors"),
    "half precision": (
        "mit.safetensors",
        lambda ours: {k: v.half() for k, v in official(ours).items()},
        "100 tensors",
    ),
    "ours": ("encoder.safetensors", lambda ours: ours.state_dict(), "108 tensors"),
    "our whole network": (
        "network.safetensors",
        lambda ours: {
            **prefixed("encoder.", ours.state_dict()),
            "mean": torch.zeros(3),
            **prefixed("decoder.a.", HEAD),
        },
        "ignored 3 others (decoder: 2, mean: 1)",
    ),
}


@pytest.mark.parametrize("kind", FILES)
def test_every_style_of_names_fills_the_encoder(kind, tmp_path):
    name, content, said = FILES[kind]
    theirs, ours = random_biases(encoder()), encoder(seed=1)
    line = load_encoder_weights(ours, str(write(tmp_path / name, content(theirs))))
    for parameter, expected in theirs.state_dict().items():
        tolerance = 2e-3 if kind == "half precision" else 0
        torch.testing.assert_close(ours.state_dict()[parameter], expected, rtol=tolerance, atol=tolerance)
    assert said in line
    assert name in line


@pytest.mark.parametrize("name", ["model.safetensors", "network.safetensors", "pytorch_model.bin"])
def test_a_folder_is_read_by_the_file_in_it(name, tmp_path):
    theirs, ours = random_biases(encoder()), encoder(seed=1)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "segformer"}))
    write(tmp_path / name, theirs.state_dict())
    assert name in load_encoder_weights(ours, str(tmp_path))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


def test_what_transformers_saves_fills_the_encoder_and_gives_its_features(tmp_path):
    from transformers.models.segformer.configuration_segformer import SegformerConfig
    from transformers.models.segformer.modeling_segformer import SegformerForImageClassification

    torch.manual_seed(3)
    config = SegformerConfig(hidden_sizes=[16, 32, 64, 96], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 4, 6])
    theirs = SegformerForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = encoder().eval()
    assert "ignored 2 others (classifier: 2)" in load_encoder_weights(ours, str(tmp_path))
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.segformer(image, output_hidden_states=True).hidden_states
        # Their layer norms have another eps.
        for level, other in zip(ours(image), expected, strict=True):
            torch.testing.assert_close(level, other, rtol=1e-2, atol=1e-2)


def test_a_model_in_the_hubs_cache_is_used_without_a_network(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = tmp_path / "models--someone--mit-tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("c0ffee")
    (model / "snapshots" / "c0ffee").mkdir(parents=True)
    theirs, ours = random_biases(encoder()), encoder(seed=1)
    write(model / "snapshots" / "c0ffee" / "pytorch_model.bin", published(theirs))
    with trusting("someone/mit-tiny"):
        assert "someone/mit-tiny@c0ffee (pytorch_model.bin)" in load_encoder_weights(ours, "someone/mit-tiny")
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_cannot_be_reached_is_said_at_once(offline, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    # Nothing listens there; without this the test would ask the real hub where there is a network.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(WeightsError, match=r"nvidia/mit-b0 .* cannot be had .*give the path of a downloaded file"):
        load_encoder_weights(encoder(), "nvidia/mit-b0")


def test_the_network_says_where_its_encoder_comes_from(tmp_path):
    settings = {"encoder": "tiny", "channels": 8, "dilations": (1, 6), "dropout": 0.0, "drop_path": 0.0}
    assert (
        MiTDAFormer(["road"], weights="scratch", **settings).origin == "encoder tiny: random start (weights: scratch)"
    )
    file = write(tmp_path / "mit.pth", official(encoder()))
    assert MiTDAFormer(["road"], weights=str(file), **settings).origin == (
        f"encoder tiny: 100 tensors from {file}, official MiT names"
    )


# Refused


def refused(where: Path | str, said: str, ours: MiT | None = None) -> None:
    """`where` is an error in one line that says so, and the encoder is as it was."""
    ours = ours or encoder()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(WeightsError, match=said) as caught:
        load_encoder_weights(ours, str(where))
    assert "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.state_dict().items())


class Executes:
    """Makes a pickle that creates a file when it is unpickled the ordinary way."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self):
        return (Path.touch, (self.witness,))


@pytest.mark.parametrize("kind", ["torch", "bare"])
def test_a_pickle_that_would_execute_code_is_refused_and_not_run(kind, tmp_path):
    witness, file = tmp_path / "witness", tmp_path / "mit.pth"
    held = {**official(encoder()), "extra": Executes(witness)}
    if kind == "torch":
        torch.save(held, file)
    else:
        file.write_bytes(pickle.dumps(Executes(witness)))
    refused(file, "refused and not run")
    assert not witness.exists()
    # The file is what it pretends to be.
    torch.load(file, weights_only=False) if kind == "torch" else pickle.loads(file.read_bytes())
    assert witness.exists()


@pytest.mark.parametrize("name", ["mit.pth", "mit.pt", "mit.bin", "mit.safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 1000, 0.5, 0.99])
def test_a_truncated_file_is_refused(name, kept, tmp_path):
    file = write(tmp_path / name, official(encoder()))
    whole = file.read_bytes()
    file.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    refused(file, re.escape(str(file)) + ".*(again)")


def test_weights_of_another_size_are_refused_with_the_name_of_theirs(tmp_path):
    file = write(tmp_path / "mit_b0.pth", official(encoder("b0")))
    refused(
        file,
        "does not fit encoder tiny: .* tensors another shape: .* and .* more; .* set network.encoder: b0",
    )


def test_a_deeper_encoder_of_the_same_shapes_is_refused(tmp_path):
    with_more = official(encoder())
    with_more.update({k.replace("block1.0", "block1.1"): v for k, v in with_more.items() if "block1.0" in k})
    refused(write(tmp_path / "mit.pth", with_more), r"too many: stages\.0\.blocks\.1")


def test_a_missing_tensor_is_named(tmp_path):
    tensors = official(encoder())
    del tensors["block3.0.attn.proj.weight"]
    refused(
        write(tmp_path / "mit.pth", tensors),
        r"1 tensors missing: stages\.2\.blocks\.0\.attention\.o_proj\.weight",
    )


def test_a_value_that_is_not_a_number_is_refused(tmp_path):
    tensors = {name: tensor.clone() for name, tensor in official(encoder()).items()}
    tensors["norm2.bias"][3] = float("nan")
    refused(write(tmp_path / "mit.pth", tensors), r"not finite numbers: stages\.1\.layer_norm\.bias")


def test_two_encoders_under_prefixes_we_know_are_refused(tmp_path):
    tensors = {**prefixed("backbone.", official(encoder())), **official(encoder(seed=1))}
    refused(write(tmp_path / "mit.pth", tensors), "there twice")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"layer1.0.conv1.weight": torch.zeros(3)}, r"holds no MiT encoder; its first names are layer1\.0"),
        (torch.zeros(3), "holds no tensors by name"),
        ({"epoch": 3}, "holds no tensors by name"),
        ({"norm1": torch.tensor(1.0)}, "holds no MiT encoder"),
    ],
)
def test_a_file_without_an_encoder_is_refused(content, said, tmp_path):
    refused(write(tmp_path / "other.pth", content), said)


def test_a_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, "holds none of model.safetensors")


@pytest.mark.parametrize("where", ["missing.pth", "/no/where", "./mit", "weights/mit.safetensors", "mit_b0", "a/b/c"])
def test_a_path_that_is_not_there_is_said_and_not_looked_up_on_the_hub(where, monkeypatch):
    monkeypatch.setattr("segda.networks.weights.load.from_hub", lambda name: pytest.fail(f"asked the hub for {name}"))
    refused(where, f"no file or folder {re.escape(where)}")


def test_another_kind_of_file_is_refused(tmp_path):
    file = tmp_path / "mit.h5"
    file.write_bytes(b"HDF")
    refused(file, r"not a kind of file that holds weights; known: \.safetensors")
