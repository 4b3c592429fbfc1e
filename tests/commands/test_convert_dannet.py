"""`segda convert` of DANNet's two files, the network and what relights, there and back; and starts from the first."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from conftest import LIT, small_recipe
from segda.cli.main import main
from segda.commands.convert import convert
from segda.errors import SegdaError
from segda.networks import NETWORKS
from segda.networks.network import Network
from segda.recipes.build import build
from segda.recipes.recipe import Recipe
from segda.run import load_network
from segda.run_data import space_of
from segda.training.assembly import student_of

DEEPLAB = {"name": "deeplab_v2", "encoder": "small", "weights": "scratch", "multi_level": False, "variant": "dannet"}
"""Their DeepLab-v2; PSPNet's names are tested with its recorded logits (tests/conformance/dannet.py)."""


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    return small_recipe(tmp_path / "data", "dannet").override(f"network={json.dumps(LIT | {'over': DEEPLAB})}")


@pytest.fixture
def network(recipe: Recipe) -> Network:
    torch.manual_seed(5)
    made: Network = build(NETWORKS, recipe.network, "network", class_names=space_of(recipe).classes)
    with torch.no_grad():
        for _ in range(2):
            made.train()(torch.rand(2, 3, 48, 64))
    return made.eval()


def authors(network: Network) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Their two files, written out: a head that no loss reaches, two dilations that nothing passes."""
    found = {}
    for name, value in network.over.state_dict().items():
        if name.startswith("encoder.stages."):
            _, _, stage, *rest = name.split(".")
            found[".".join([f"layer{int(stage) + 1}", *rest]).replace(".shortcut.", ".downsample.")] = value
        elif name.startswith("encoder."):
            found[name.removeprefix("encoder.")] = value
    for i, branch in enumerate(network.over.classifiers["main"]):
        for head, place in (("layer6", i), ("layer6", i + 2), ("layer5", i), ("layer5", i + 2)):
            found |= {f"{head}.conv2d_list.{place}.{key}": value for key, value in branch.state_dict().items()}
    return found, dict(network.relighting.state_dict())


@pytest.fixture
def files(network: Network, tmp_path: Path) -> tuple[Path, Path]:
    places = tmp_path / "dannet.pth", tmp_path / "dannet_light.pth"
    for place, tensors in zip(places, authors(network), strict=True):
        torch.save(tensors, place)
    return places


@torch.no_grad()
def test_two_files_are_one_run_and_two_files_again(recipe, network, files, tmp_path):
    done = convert(files[0], tmp_path / "run", recipe=recipe, light=files[1], source="dannet-deeplab")
    assert any("layer5" in name for name in done.left_out)
    ours, image = load_network(tmp_path / "run").eval(), torch.rand(1, 3, 33, 48)
    assert torch.equal(ours.infer(image), network.infer(image))
    convert(tmp_path / "run", tmp_path / "back.pth", target="dannet-deeplab")
    back, light = (torch.load(tmp_path / name) for name in ("back.pth", "back_light.pth"))
    told, told_light = authors(network)
    assert light.keys() == told_light.keys() and all(torch.equal(light[name], told_light[name]) for name in light)
    used = {name for name in told if "layer5" not in name and "conv2d_list.2" not in name}
    assert back.keys() == {name for name in used if "conv2d_list.3" not in name}
    assert all(torch.equal(back[name], told[name]) for name in back)


def test_the_recipe_says_which_of_two_deeplabs_it_is(recipe, files, tmp_path):
    assert convert(files[0], tmp_path / "run", recipe=recipe, light=files[1]).style == "dannet-deeplab"


def refused(*words: str | Path, capsys) -> str:
    assert main(["convert", *map(str, words)]) == 2
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    return said


def test_what_does_not_go_together_is_one_line(recipe, files, tmp_path, capsys):
    written, plain = tmp_path / "recipe.yaml", tmp_path / "plain.yaml"
    written.write_text(recipe.to_yaml())
    plain.write_text(small_recipe(tmp_path / "data").override(f"network={json.dumps(DEEPLAB)}").to_yaml())
    net, light = files
    out = ("--out", tmp_path / "run")
    assert "--light: needed" in refused(net, "--recipe", written, *out, capsys=capsys)
    assert "has no effect without a recipe" in refused(net, "--recipe", plain, "--light", light, *out, capsys=capsys)
    swapped = refused(net, "--recipe", written, "--light", net, *out, "--from", "dannet-deeplab", capsys=capsys)
    assert "tensors have no place" in swapped or "lacks" in swapped
    missing = refused(net, "--recipe", written, "--light", tmp_path / "none.pth", *out, capsys=capsys)
    assert "none.pth: no such file" in missing
    assert not (tmp_path / "run" / "network.safetensors").exists()


def test_both_files_are_refused_where_one_is_there_already(recipe, files, tmp_path):
    convert(files[0], tmp_path / "run", recipe=recipe, light=files[1])
    (tmp_path / "back_light.pth").write_bytes(b"mine")
    with pytest.raises(SegdaError, match="back_light.pth exists"):
        convert(tmp_path / "run", tmp_path / "back.pth", target="dannet-deeplab")
    assert not (tmp_path / "back.pth").exists() and (tmp_path / "back_light.pth").read_bytes() == b"mine"


@pytest.mark.parametrize("of_ours", [False, True])
def test_the_network_inside_starts_from_its_own_file_and_what_relights_at_random(
    recipe, network, files, tmp_path, of_ours
):
    start = files[0]
    if of_ours:
        plain = small_recipe(tmp_path / "data").override(f"network={json.dumps(DEEPLAB)}")
        convert(files[0], tmp_path / "source", recipe=plain)
        start = tmp_path / "source"
    student = student_of(recipe.override(f"start={start}"), space_of(recipe), fresh=True)
    inside = network.over.state_dict()
    assert all(torch.equal(value, inside[name]) for name, value in student.over.state_dict().items())
    assert not torch.equal(student.relighting.model[1].weight, network.relighting.model[1].weight)
    assert student.origin.startswith("student.over, the rest at random: ")


def test_a_start_of_other_classes_is_one_line(recipe, files, tmp_path):
    plain = small_recipe(tmp_path / "data").override(f"network={json.dumps(DEEPLAB)}")
    convert(files[0], tmp_path / "source", recipe=plain)
    other = recipe.override("data.space=cityscapes-19", f"start={tmp_path / 'source'}")
    frequencies = {name: 0.1 for name in space_of(other).classes}
    other = other.override(f"network.frequencies={json.dumps(frequencies)}")
    with pytest.raises(SegdaError, match="^start: .* knows 11 classes|^start: .* other classes"):
        student_of(other, space_of(other), fresh=True)
