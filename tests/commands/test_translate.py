from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_recipe
from segda import run as runs
from segda.cli.main import main
from segda.commands.train import train
from segda.commands.translate import translate
from segda.data.files.images import read_image
from segda.data.sets.datasets import open_data
from segda.data.sets.translated import SUMMARY, read_summary, translated_data
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError, RecipeError, RunError, WeightsError
from segda.ground.alone import alone_in
from segda.pseudo_labelling.cross_bilateral import jointly_enlarged, unit_lab
from segda.training import translation
from segda.training.assembly import load_product


@pytest.fixture(scope="module")
def translator(tmp_path_factory) -> Path:
    """A run of a translator between CamVid's day and dusk, with the data beside it."""
    from conftest import write_camvid

    folder = tmp_path_factory.mktemp("translator")
    train(small_recipe(write_camvid(folder / "data"), "cyclegan").override("steps=2", "keep_every=1"), folder / "run")
    return folder / "run"


def names(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


BESIDE = {SUMMARY, translation.SHEET}


def test_images_are_written_where_their_originals_are_in_their_data_set(translator, tmp_path):
    summary = translate(translator, "camvid:train:day", tmp_path / "out", precision="32")
    data = open_data("camvid:train:day", translator.parent / "data")
    assert names(tmp_path / "out") == {*data.images, *BESIDE}
    assert summary["data"]["images"] == 4 and summary["finished"] is True
    assert summary == read_summary(tmp_path / "out")
    generator = load_product(translator, "translator")
    for i, name in enumerate(data.images):
        image = data.read(i).image.float() / 255
        with torch.no_grad():
            painted = (generator(image[None] * 2 - 1)[0] + 1) / 2
        found = read_image(tmp_path / "out" / name).float() / 255
        assert (found - painted).abs().max() <= 0.5 / 255 + 1e-6


def test_the_other_way_is_the_other_network(translator, tmp_path):
    translate(translator, "camvid:train:dusk", tmp_path / "back", to="source", precision="32")
    data = open_data("camvid:train:dusk", translator.parent / "data")
    image = data.read(0).image.float() / 255
    with torch.no_grad():
        painted = (load_product(translator, "translator_back")(image[None] * 2 - 1)[0] + 1) / 2
    found = read_image(tmp_path / "back" / data.images[0]).float() / 255
    assert (found - painted).abs().max() <= 0.5 / 255 + 1e-6


def test_images_have_the_size_that_the_translator_learnt_but_are_not_cropped(camvid, tmp_path):
    recipe = small_recipe(camvid, "cyclegan").override("data.source.augment.resize=[36, 27]", "steps=1")
    recipe = recipe.override("data.source.augment.crop=[24, 24]", "data.target.augment.crop=[24, 24]")
    train(recipe, tmp_path / "run")
    translate(tmp_path / "run", "camvid:val", tmp_path / "out", root=camvid)
    data = open_data("camvid:val", camvid)
    assert {tuple(read_image(tmp_path / "out" / name).shape) for name in data.images} == {(3, 27, 36)}


def test_what_a_translator_of_stretched_images_paints_is_of_the_images_shape(camvid, tmp_path):
    stretched = "{resize: [32, 48], shape: stretch, crop: null, max_class_share: null, flip: 0}"
    settings = (f"data.{domain}.augment={stretched}" for domain in ("source", "target"))
    train(small_recipe(camvid, "cyclegan").override("steps=1", *settings), tmp_path / "run")
    translate(tmp_path / "run", "camvid:train:day", tmp_path / "out", root=camvid)
    data = open_data("camvid:train:day", camvid)
    assert {tuple(read_image(tmp_path / "out" / name).shape) for name in data.images} == {(3, 48, 64)}
    translated_data(data, tmp_path / "out").read(0)


def test_the_weights_after_a_step_are_those(translator, tmp_path):
    summary = translate(translator, "camvid:val", tmp_path / "out", step=1)
    assert summary["network"]["step"] == 1
    other = translate(translator, "camvid:val", tmp_path / "other")
    assert summary["network"]["sha256"] != other["network"]["sha256"]


def test_a_call_that_was_interrupted_goes_on_with_what_is_missing(translator, tmp_path, monkeypatch):
    out = tmp_path / "out"
    written = []

    def stopping(path, rgb, whole=translation.write_image):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        whole(path, rgb)

    with monkeypatch.context() as patch:
        patch.setattr(translation, "write_image", stopping)
        with pytest.raises(KeyboardInterrupt):
            translate(translator, "camvid:train:day", out)
    assert read_summary(out)["finished"] is False
    before = {path: path.stat().st_mtime_ns for path in written}
    translate(translator, "camvid:train:day", out)
    assert {path: path.stat().st_mtime_ns for path in written} == before
    whole = tmp_path / "whole"
    translate(translator, "camvid:train:day", whole)
    assert names(out) == names(whole)
    assert all((out / name).read_bytes() == (whole / name).read_bytes() for name in names(whole))


def test_what_is_there_is_not_made_again_unless_asked(translator, tmp_path):
    out = tmp_path / "out"
    translate(translator, "camvid:val", out)
    image = next(path for path in out.rglob("*.png"))
    marked = np.zeros((4, 4, 3), np.uint8)
    Image.fromarray(marked).save(image)
    translate(translator, "camvid:val", out)
    assert read_image(image).shape == (3, 4, 4)
    translate(translator, "camvid:val", out, overwrite=True)
    assert read_image(image).shape == (3, 48, 64)


def test_images_of_another_network_direction_or_precision_do_not_mix(translator, tmp_path):
    out = tmp_path / "out"
    translate(translator, "camvid:val", out, precision="32")
    before = names(out)
    for changes, what in (
        ({"step": 1}, "network"),
        ({"to": "source"}, "to, network"),
        ({"precision": "bf16"}, "precision"),
    ):
        with pytest.raises(RunError, match=f"translated with other {what}; use --overwrite to make them anew"):
            translate(translator, "camvid:val", out, **{"precision": "32", **changes})
    with pytest.raises(RunError, match=r"holds images translated of camvid:val; choose another --out"):
        translate(translator, "camvid:train:day", out, overwrite=True)
    assert names(out) == before
    translate(translator, "camvid:val", out, step=1, overwrite=True)
    assert read_summary(out)["network"]["step"] == 1


def test_images_that_have_changed_meanwhile_are_other_data(translator, camvid, tmp_path):
    translate(translator, "camvid:val", tmp_path / "out", root=camvid)
    data = open_data("camvid:val", camvid)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(data.image_path(0))
    with pytest.raises(RunError, match=r"holds images translated of other files of camvid:val"):
        translate(translator, "camvid:val", tmp_path / "out", root=camvid)


def test_a_folder_of_something_else_is_left_alone(translator, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="exists and is not a folder of translated images; choose another --out"):
        translate(translator, "camvid:val", out)
    with pytest.raises(RunError, match=r"mine/notes.txt is a file; give a folder"):
        translate(translator, "camvid:val", out / "notes.txt")
    assert names(out) == {"notes.txt"}
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / SUMMARY).write_text("[]")
    with pytest.raises(RunError, match=r"translation.json cannot be read"):
        translate(translator, "camvid:val", tmp_path / "odd")


def test_one_process_a_folder(translator, tmp_path):
    held = alone_in(tmp_path / "out", "another process is here")
    with held, pytest.raises(RunError, match=r"another process is here .* choose another --out"):
        translate(translator, "camvid:val", tmp_path / "out")


def test_what_cannot_be_translated_is_one_line_and_leaves_nothing(translator, camvid, tmp_path, capsys):
    student = tmp_path / "student"
    train(small_recipe(camvid).override("steps=1", "evaluate.data=[]"), student)
    half = tmp_path / "half"
    half.mkdir()
    for file in ("recipe.yaml", "data.json"):
        (half / file).write_bytes((translator / file).read_bytes())
    root = ["--root", str(camvid)]
    out = ["--out", str(tmp_path / "out")]
    for arguments, message in (
        (
            [str(student), "--data", "camvid:val"],
            "method source_only trains no translator; give a run of one that does",
        ),
        ([str(tmp_path / "none"), "--data", "camvid:val"], "is not a run folder"),
        ([str(half), "--data", "camvid:val"], "has no translator (translator.safetensors)"),
        ([str(translator), "--data", "camvid:test", "--to", "dusk"], "dusk"),
        ([str(translator), "--data", "camvid:train:dusk"], "--to source translates it the other way"),
        ([str(translator), "--data", "camvid:train:day", "--to", "source"], "--to target translates it the other way"),
        ([str(translator), "--data", "camvid:train*2"], "leave out the *"),
        ([str(translator), "--data", "camvid:tain"], "did you mean 'train'?"),
        ([str(translator), "--data", "camvid:val", "--step", "9"], "has no translator of step 9"),
    ):
        assert main(["translate", *arguments, *root, *out]) == 2, arguments
        said = capsys.readouterr().err
        assert message in said and len(said.splitlines()) == 1, said
        assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="--to dusk: images can be made to look like the target or the source"):
        translate(translator, "camvid:val", tmp_path / "out", to="dusk")


def test_an_image_that_is_too_small_is_named(translator, camvid, tmp_path):
    data = open_data("camvid:val", camvid)
    Image.fromarray(np.zeros((6, 64, 3), np.uint8)).save(data.image_path(0))
    with pytest.raises(DataError, match=r"image of 6 x 64 pixels .* translator needs 8 on each side"):
        translate(translator, "camvid:val", tmp_path / "out", root=camvid)
    assert not [path for path in (tmp_path / "out").rglob("*.png") if path.stat().st_size == 0]


def test_weights_that_paint_nothing_finite_are_refused(translator, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in translator.glob("*.*"):
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    path = run / "translator.safetensors"
    tensors = {name: torch.full_like(value, float("nan")) for name, value in runs.read_tensors(path).items()}
    runs.save_product(path, runs.load_recipe_of(run).method, 2, tensors)
    with pytest.raises(WeightsError, match="holds numbers that are not finite"):
        translate(run, "camvid:val", tmp_path / "out")


def test_a_perceptual_network_need_not_be_there_any_more(translator, camvid, tmp_path):
    given, run = tmp_path / "given", tmp_path / "run"
    train(small_recipe(camvid).override("steps=1", "evaluate.data=[]"), given)
    recipe = small_recipe(camvid, "cyclegan").override("steps=1")
    with pytest.raises(RecipeError, match=r"given: \{perceptual: RUN\}; without one, set both to 0"):
        train(recipe.override("method.perceptual_weight=0.1"), run)
    with pytest.raises(RecipeError, match=r"given.perceptual: has no effect: method.perceptual_weight and"):
        train(recipe.override(f"given.perceptual={given}"), run)
    other = recipe.override("method.perceptual_weight=0.1", f"given.perceptual={given}", "data.space=cityscapes-19")
    with pytest.raises(WeightsError, match=r"given.perceptual: .* knows 11 other classes than the 19 of this recipe"):
        train(other, run)
    assert not run.exists()
    train(recipe.override("method.perceptual_weight=0.1", f"given.perceptual={given}"), run)
    assert "perceptual/target" in next(iter(runs.read_log(run)))
    (given / "network.safetensors").unlink()
    translate(run, "camvid:val", tmp_path / "out", root=camvid)


def test_the_command_says_what_it_has_done(translator, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(SPLITS, "test", (SPLITS["test"][0], 3))
    assert main(["translate", str(translator), "--data", "streets:test:day", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert shown.endswith(f"images of streets:test:day in {tmp_path / 'out'}, like the target\n")
    assert read_image(tmp_path / "out" / translation.SHEET).shape[2] > 1280
    assert json.loads((tmp_path / "out" / SUMMARY).read_text())["finished"] is True


JOINT = {"name": "joint", "space": 0.5, "colour": 0.1}


@pytest.fixture(scope="module")
def small(translator, tmp_path_factory) -> Path:
    """A run of a translator that sees images at half their size."""
    recipe = small_recipe(translator.parent / "data", "cyclegan").override("steps=1")
    halved = (
        f"data.{domain}.augment.{key}"
        for domain in ("source", "target")
        for key in ("resize=[32, 24]", "crop=[24, 24]")
    )
    run = tmp_path_factory.mktemp("small") / "run"
    train(recipe.override(*halved), run)
    return run


def test_what_is_painted_small_is_enlarged_along_the_edges_of_its_original(small, translator, tmp_path):
    root = translator.parent / "data"
    translate(small, "camvid:val", tmp_path / "plain", root=root, precision="32")
    summary = translate(small, "camvid:val", tmp_path / "joint", root=root, precision="32", enlarge="joint")
    assert summary["enlarge"] == JOINT and read_summary(tmp_path / "plain")["enlarge"] is None
    data = open_data("camvid:val", root)
    for i, name in enumerate(data.images):
        painted, ours = (read_image(tmp_path / folder / name).permute(1, 2, 0).numpy() for folder in ("plain", "joint"))
        original = np.ascontiguousarray(data.read(i).image.permute(1, 2, 0).numpy())
        assert painted.shape == (24, 32, 3) and ours.shape == original.shape
        theirs = jointly_enlarged(painted, unit_lab(original), space=0.5, colour=0.1)
        assert np.abs(ours - theirs).max() <= 0.5
    assert torch.equal(
        translated_data(data, tmp_path / "joint").read(0).image, read_image(tmp_path / "joint" / data.images[0])
    )


def test_images_that_were_enlarged_otherwise_do_not_mix(small, translator, tmp_path):
    root, out = translator.parent / "data", tmp_path / "out"
    translate(small, "camvid:val", out, root=root, enlarge="joint", enlarge_settings=["space=0.7"])
    for enlarge in (None, "joint"):
        with pytest.raises(RunError, match="translated with other enlarge; use --overwrite to make them anew"):
            translate(small, "camvid:val", out, root=root, enlarge=enlarge)
    translate(small, "camvid:val", out, root=root, enlarge=JOINT | {"space": 0.7})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--enlarge", "joint"], "--enlarge: has no effect: RUN paints the images of camvid:val in their own size"),
        (["--enlarge", "bicubic"], "enlarge.name: unknown 'bicubic'; known: joint"),
        (["--enlarge", "joint", "--enlarge-set", "space=0"], "enlarge.space: 0.0 is not above 0"),
        (["--enlarge", "joint", "--enlarge-set", "sharpness=1"], "enlarge joint has no setting 'sharpness'"),
        (["--enlarge-set", "space=1"], "--enlarge-set space=1: has no effect without --enlarge; remove it"),
    ],
)
def test_an_enlargement_that_is_none_is_one_line_and_leaves_nothing(translator, tmp_path, capsys, given, said):
    out = tmp_path / "out"
    assert main(["translate", str(translator), "--data", "camvid:val", "--out", str(out), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said.replace("RUN", str(translator)) in line and not out.exists()
