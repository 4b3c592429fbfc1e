"""CycleGAN's generators, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from conftest import small_recipe
from segda import run as runs
from segda.cli.main import main
from segda.commands.convert import convert
from segda.commands.train import train
from segda.commands.translate import translate
from segda.errors import RecipeError, RunError, WeightsError
from segda.networks.translator import Generator
from segda.training.assembly import load_product


@pytest.fixture
def theirs(tmp_path: Path) -> dict[str, torch.Tensor]:
    """A state dict as BDL's code writes it, with the averages of its instance norm; in TMP/45_net_G_A.pth, too."""
    generator = Generator(width=4, blocks=1, upsampling="transposed")
    tensors = dict(generator.state_dict())
    for name, module in generator.named_modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            tensors[f"{name}.running_mean"] = torch.full((module.num_features,), 5.0)
            tensors[f"{name}.running_var"] = torch.full((module.num_features,), 9.0)
            tensors[f"{name}.num_batches_tracked"] = torch.tensor(7)
    torch.save(tensors, tmp_path / "45_net_G_A.pth")
    return tensors


def test_a_generator_paints_as_it_did_in_training(theirs, camvid, tmp_path):
    recipe = small_recipe(camvid, "cyclegan")
    done = convert(tmp_path / "45_net_G_A.pth", tmp_path / "run", recipe=recipe)
    assert (done.style, done.detected, done.missing) == ("cyclegan", True, ())
    assert done.left_out and all("running" in name or "tracked" in name for name in done.left_out)
    assert "paints what looks like the target, by its name" in done.lines()
    ours = load_product(tmp_path / "run", "translator")
    reference = Generator(width=4, blocks=1, upsampling="transposed")
    reference.load_state_dict({name: theirs[name] for name in reference.state_dict()})
    image = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(ours(image), reference(image))
    summary = translate(tmp_path / "run", "camvid:train:day", tmp_path / "out", root=camvid)
    assert summary["network"]["step"] is None and summary["finished"]
    with pytest.raises(WeightsError, match="has no translator_back"):
        translate(tmp_path / "run", "camvid:train:dusk", tmp_path / "back", to="source", root=camvid)


def test_the_way_back_is_told_by_its_name(theirs, camvid, tmp_path):
    (tmp_path / "45_net_G_A.pth").rename(tmp_path / "45_net_G_B.pth")
    recipe = small_recipe(camvid, "cyclegan")
    done = convert(tmp_path / "45_net_G_B.pth", tmp_path / "run", "cyclegan", recipe=recipe)
    assert "paints what looks like the source, by its name" in done.lines()
    translate(tmp_path / "run", "camvid:train:dusk", tmp_path / "back", to="source", root=camvid)


def test_there_and_back_is_the_same(theirs, camvid, tmp_path):
    train(small_recipe(camvid, "cyclegan").override("steps=2", "keep_every=1"), tmp_path / "run")
    for product, name in (("translator", "1_net_G_A.pth"), ("translator_back", "1_net_G_B.pth")):
        assert convert(tmp_path / "run", tmp_path / name, target="cyclegan").left_out == ()
        written = torch.load(tmp_path / name, weights_only=True)
        ours = runs.read_tensors(runs.product_path(tmp_path / "run", product))
        assert written.keys() == ours.keys() and all(torch.equal(written[key], ours[key]) for key in ours)
        convert(tmp_path / name, tmp_path / product, recipe=small_recipe(camvid, "cyclegan"))
        again = runs.read_tensors(runs.product_path(tmp_path / product, product))
        assert all(torch.equal(again[key], ours[key]) for key in ours)
    first = convert(tmp_path / "run", tmp_path / "first_G_A.pth", target="cyclegan", step=1)
    assert first.tensors == len(ours)
    earlier = torch.load(tmp_path / "first_G_A.pth", weights_only=True)
    last = torch.load(tmp_path / "1_net_G_A.pth", weights_only=True)
    assert any(not torch.equal(earlier[name], last[name]) for name in last)


def test_what_is_no_generator_of_the_recipe_is_one_line_and_leaves_nothing(theirs, camvid, tmp_path, capsys):
    recipe, file, out = small_recipe(camvid, "cyclegan"), tmp_path / "45_net_G_A.pth", tmp_path / "run"
    student = small_recipe(camvid)
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for given, settings, message in (
        (file, {"recipe": recipe.override("method.width=8")}, "is no generator of width 8 and 1 blocks: "),
        (
            file,
            {"recipe": recipe.override("method.upsampling=resize")},
            "resize is not that of cyclegan files; set it to",
        ),
        (file, {"recipe": recipe.override("method.blocks=2")}, "is no generator of width 4 and 2 blocks: "),
        (tmp_path / "other.pth", {"recipe": recipe}, "is no generator of width 4"),
        (tmp_path / "none.pth", {"recipe": recipe}, "no such file; give a generator of CycleGAN's"),
        (file, {"source": "cyclegan"}, "--recipe: needed to know the generator"),
        (file, {"source": "cyclegan", "recipe": student}, "method source_only trains no translator"),
        (file, {"source": "advent", "recipe": recipe}, "method cyclegan trains no network that a file of style advent"),
        (file, {"recipe": recipe, "allow_missing": True}, "a generator must be whole"),
        (file, {"recipe": recipe, "leave_out": ["head"]}, "nothing that could be left out begins so"),
    ):
        with pytest.raises((RecipeError, WeightsError)) as error:
            convert(given, out, **settings)
        assert message in str(error.value)
        assert not out.exists()
    with pytest.raises(RecipeError, match="our translators are kept in a run folder"):
        convert(file, tmp_path / "translator.safetensors", recipe=recipe)
    train(student.override("steps=1", "evaluate.data=[]"), tmp_path / "student")
    with pytest.raises(WeightsError, match="method source_only trains no translator; choose another style"):
        convert(tmp_path / "student", tmp_path / "x.pth", target="cyclegan")
    with pytest.raises(WeightsError, match="holds no generator"):
        convert(tmp_path / "student" / "network.safetensors", tmp_path / "x.pth", target="cyclegan")
    resizing = tmp_path / "resizing"
    train(recipe.override("steps=1", "method.upsampling=resize"), resizing)
    for ours in (resizing, resizing / "translator.safetensors"):
        with pytest.raises(WeightsError, match="generator of upsampling resize, which cyclegan code does not have"):
            convert(ours, tmp_path / "x.pth", target="cyclegan")
    assert not (tmp_path / "x.pth").exists()
    assert main(["convert", str(file), "--from", "cyclgan", "--out", str(out)]) == 2
    assert "did you mean 'cyclegan'" in capsys.readouterr().err
    convert(file, out, recipe=recipe)
    with pytest.raises(RunError, match="already holds a run"):
        convert(file, out, recipe=recipe)
    convert(file, out, recipe=recipe, overwrite=True)
