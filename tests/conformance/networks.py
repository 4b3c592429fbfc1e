"""MiT and the sep-ASPP decoder against values recorded from the authors' code (golden/daformer_ebda)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from golden import Golden
from segda.commands.convert import convert
from segda.networks import MiTDAFormer
from segda.networks.weights.layouts import LAYOUTS
from segda.recipes.recipe import load_recipe
from segda.run import load_network

GOLDEN = Golden("daformer_ebda")

NAMES = LAYOUTS["daformer"]


def generated(name: str, shape: list[int], kind: str, golden: Golden = GOLDEN) -> Tensor:
    """The value of an entry of the authors' state dict (the set's README has the table)."""
    shape = tuple(shape)
    if kind == "count":
        return torch.zeros(shape, dtype=torch.int64)
    normal = golden.normal(name, shape)
    values = {
        "weight": lambda: normal * np.float32(np.prod(shape[1:]) ** -0.5),
        "bias": lambda: np.float32(0.1) * normal,
        "norm_weight": lambda: 1 + np.float32(0.1) * normal,
        "norm_bias": lambda: np.float32(0.1) * normal,
        "running_mean": lambda: np.float32(0.1) * normal,
        "running_var": lambda: 1 + np.float32(0.1) * abs(normal),
        "scale": lambda: np.float32(0.1) * normal,
        "token": lambda: np.float32(0.5) * normal,
        "offset": lambda: normal,
    }
    # A single number is an array of numpy's only before it is multiplied.
    return torch.from_numpy(np.asarray(values[kind]()))


def authors_network(encoder: str, folder: Path) -> MiTDAFormer:
    """The network with the generated weights, as `segda convert` makes it from a training's checkpoint of theirs."""
    theirs = {
        f"model.{name}": generated(name, *row) for name, row in GOLDEN.json(f"daformer_mit_{encoder}.json").items()
    }
    torch.save({"meta": {"best_score": np.float64(68.3)}, "state_dict": theirs}, folder / "iter_40000.pth")
    recipe = load_recipe("daformer_gta5_cityscapes").override(f"network.encoder={encoder}")
    done = convert(folder / "iter_40000.pth", folder / "run", recipe=recipe)
    assert (done.style, done.left_out, done.added, done.missing) == ("daformer", ("meta",), ("mean", "deviation"), ())
    return load_network(folder / "run")


def build(encoder: str) -> MiTDAFormer:
    return MiTDAFormer(
        [str(i) for i in range(19)],
        encoder=encoder,
        weights="scratch",
        channels=256,
        dilations=(1, 6, 12, 18),
        dropout=0.1,
        drop_path=0.1,
    )


@pytest.mark.parametrize(
    ("encoder", "file", "size"),
    [("b0", "mit_b0_96x128.npz", (96, 128)), ("b5", "mit_b5_64x64.npz", (64, 64))],
)
@torch.no_grad()
def test_features_and_logits_equal_the_authors(encoder, file, size, tmp_path):
    network, theirs = authors_network(encoder, tmp_path), GOLDEN.npz(file)
    # Recorded on normalised images, so past our normalisation.
    features = network.encoder(torch.from_numpy(GOLDEN.normal(f"input/mit_{encoder}", (1, 3, *size))))
    for level, ours in enumerate(features, start=1):
        np.testing.assert_allclose(ours.numpy(), theirs[f"f{level}"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(network.decode(features).numpy(), theirs["logits"], rtol=1e-5, atol=5e-6)


def test_groups_of_parameters_are_the_authors():
    network = build("b0")
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = GOLDEN.json("lr.json")["groups_b0_daformer"]
    theirs = {"encoder": "lr=6e-05,wd=0.01", "norm": "lr=6e-05,wd=0", "head": "lr=0.0006,wd=0.01"}
    assert set(theirs.values()) == set(groups)
    for group, key in theirs.items():
        expected = {ours for name in groups[key]["names"] for ours in NAMES.ours(name)}
        assert {names[id(parameter)] for parameter in network.groups()[group]} == expected
    # Their keys and values are one matrix, ours two: 8 blocks, weight and bias.
    assert {group: len(parameters) for group, parameters in network.groups().items()} == {
        "encoder": 116 + 16,
        "norm": 60,
        "head": 34,
    }
