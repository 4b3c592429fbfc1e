from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_recipe
from segda.commands.train import train
from segda.data.sets.datasets import open_data
from segda.data.sets.translated import SUMMARY, image_names, translated_data
from segda.errors import DataError, RunError
from segda.training.assembly import assemble

SPEC = "camvid:train:day"


def painted(root: Path, out: Path, spec: str = SPEC, size: tuple[int, int] = (64, 48), flat: bool = False) -> Path:
    """A folder of red images, (width, height), one for each image of a data set."""
    for part in open_data(spec, root).parts:
        for name in image_names(part):
            path = out / (Path(name).name if flat else name)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", size, (200, 10, 10)).save(path)
    return out


@pytest.mark.parametrize("flat", [False, True])
def test_images_come_from_the_folder_and_labels_from_the_data_set(camvid, tmp_path, flat):
    data = open_data(SPEC, camvid)
    ours = translated_data(data, painted(camvid, tmp_path / "red", flat=flat))
    assert (len(ours), ours.names, ours.spec) == (len(data), data.names, SPEC)
    for i in range(len(data)):
        scene, original = ours.read(i, label=True), data.read(i, label=True)
        assert scene.image.unique(dim=1).shape[1] == 1 and scene.image[0, 0, 0] == 200
        assert torch.equal(scene.label, original.label) and scene.names == original.names
        assert ours.read(i).label is None
        assert ours.image_path(i).is_relative_to(tmp_path / "red") and str(ours.image_path(i)) == ours.place(i)
    assert pickle.loads(pickle.dumps(ours)).read(0).names == data.read(0).names


def test_a_smaller_image_is_brought_to_its_originals_size(camvid, tmp_path):
    data = open_data(SPEC, camvid)
    folder = painted(camvid, tmp_path / "red", size=(32, 24))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (24, 32, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / data.images[0])
    scene = translated_data(data, folder).read(0, label=True)
    theirs = np.array(Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC))
    assert np.array_equal(scene.image.permute(1, 2, 0).numpy(), theirs)
    assert scene.label.shape == (48, 64)


@pytest.mark.parametrize("size", [(64, 40), (48, 64), (32, 22)])
def test_an_image_of_another_shape_is_refused(camvid, tmp_path, size):
    ours = translated_data(open_data(SPEC, camvid), painted(camvid, tmp_path / "red", size=size))
    told = rf"is {size[0]}x{size[1]}, its original .* is 64x48: not the same picture at another scale"
    with pytest.raises(DataError, match=told):
        ours.read(0)


def test_missing_images_are_named_at_once(camvid, tmp_path):
    folder = painted(camvid, tmp_path / "red")
    data = open_data(SPEC, camvid)
    for name in data.images[:2]:
        (folder / name).unlink()
    with pytest.raises(DataError) as error:
        translated_data(data, folder)
    first, second = data.images[:2]
    assert str(error.value).startswith(f"{folder}: 2 of the 4 images of {SPEC} are missing: {first}, {second}; ")
    with pytest.raises(DataError, match=r"no such folder of translated images of camvid:train:day; make it with segda"):
        translated_data(data, tmp_path / "none")


def summed_up(folder: Path, spec: str, finished: bool = True) -> None:
    text = json.dumps({"data": {"spec": spec}, "network": {}, "to": "target", "finished": finished})
    (folder / SUMMARY).write_text(text)


@pytest.mark.parametrize("made_of", ["camvid:val", "streets:train", "camvid:train:dusk", "camvid:val+streets:train"])
def test_a_whole_folder_that_says_it_was_made_of_other_data_is_refused(camvid, tmp_path, made_of):
    data, folder = open_data(SPEC, camvid), painted(camvid, tmp_path / "red")
    summed_up(folder, made_of)
    with pytest.raises(DataError) as error:
        translated_data(data, folder)
    assert str(error.value).startswith(f"{folder} holds images translated of {made_of}, not of {SPEC}; give the folder")


@pytest.mark.parametrize("made_of", [SPEC, "camvid:train", f"streets:train+{SPEC}", f"{SPEC}*2+streets:train*1"])
def test_a_folder_that_says_it_was_made_of_these_data_or_more_is_taken_once_it_is_whole(camvid, tmp_path, made_of):
    data, folder = open_data(SPEC, camvid), painted(camvid, tmp_path / "red")
    summed_up(folder, made_of)
    assert len(translated_data(data, folder)) == 4
    summed_up(folder, made_of, finished=False)
    with pytest.raises(DataError, match=r"the translation of .* was interrupted; repeat the call of segda translate"):
        translated_data(data, folder)
    (folder / SUMMARY).write_text('{"data": {"spec": 3}, "network": {}}')
    with pytest.raises(RunError, match=r"translation.json cannot be read \(it was edited or damaged\); remove the"):
        translated_data(data, folder)


def test_a_folder_of_ones_own_is_known_by_its_yaml_file_however_its_path_is_written(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name / "images/0.png")
        (tmp_path / name / "data.yaml").write_text("splits: {train: {images: images}}\nclasses: {road: {id: 0}}\n")
    monkeypatch.chdir(tmp_path)
    data, folder = open_data("folder:a/data.yaml:train", tmp_path), tmp_path / "a"
    for made_of in ("folder:a/data.yaml:train", f"folder:{tmp_path}/a/data.yaml:train", "folder:gone/data.yaml:train"):
        summed_up(folder, made_of)
        assert len(translated_data(data, folder)) == 1
    for made_of in ("folder:b/data.yaml:train", "folder:a/data.yaml:val", "folder:gone/other.yaml:train"):
        summed_up(folder, made_of)
        with pytest.raises(DataError, match=f"translated of {made_of}, not of folder:a/data.yaml:train"):
            translated_data(data, folder)


def test_ends_of_paths_that_two_images_share_are_no_names(tmp_path):
    # Two sequences number their frames alike: a flat folder cannot say which is which.
    for folder in ("a", "b"):
        for k in range(2):
            path = tmp_path / "own" / folder / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 48)).save(path)
    (tmp_path / "own.yaml").write_text(
        "root: own\nclasses: {road: {id: 0}, sky: {id: 1}}\nsplits: {train: {images: '*/*.png'}}\n"
    )
    data = open_data(f"folder:{tmp_path / 'own.yaml'}:train")
    flat = tmp_path / "flat"
    flat.mkdir()
    for k in range(2):
        Image.new("RGB", (64, 48)).save(flat / f"{k}.png")
    with pytest.raises(DataError, match=r"4 of the 4 images .* are missing: a/0.png, a/1.png, b/0.png and 1 more"):
        translated_data(data, flat)
    assert len(translated_data(data, tmp_path / "own")) == 4


def test_a_union_takes_the_images_of_all_its_parts(camvid, tmp_path):
    spec = "camvid:train:day+streets:test:day"
    data = open_data(spec, camvid, open_data("camvid:train", camvid).space)
    folder = painted(camvid, tmp_path / "red")
    with pytest.raises(DataError, match=r"images of camvid:train:day\+streets:test:day are missing: test_day_"):
        translated_data(data, folder)
    for name in image_names(data.parts[1]):
        Image.new("RGB", (512, 256), (200, 10, 10)).save(folder / name)
    ours = translated_data(data, folder)
    assert [part.where for part in ours.parts] == [str(folder)] * 2
    assert ours.read(len(ours) - 1).image[0, 0, 0] == 200


def test_an_image_of_another_ending_is_pointed_at(camvid, tmp_path):
    folder, data = painted(camvid, tmp_path / "red", flat=True), open_data(SPEC, camvid)
    for name in data.images:
        path = folder / Path(name).name
        path.rename(path.with_suffix(".jpg"))
    first = Path(data.images[0]).stem
    with pytest.raises(DataError, match=f"4 of the 4 .* are missing: .*; {first}.jpg is there, but an image must have"):
        translated_data(data, folder)


def test_images_that_two_data_sets_would_share_are_refused(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "images").mkdir(parents=True)
        Image.new("RGB", (64, 48)).save(tmp_path / name / "images/0.png")
        (tmp_path / name / "data.yaml").write_text("splits: {train: {images: images}}\nclasses: {road: {id: 0}}\n")
    (tmp_path / "red/images").mkdir(parents=True)
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "red/images/0.png")
    one, other = (f"folder:{tmp_path / name}/data.yaml:train" for name in "ab")
    assert len(translated_data(open_data(one, tmp_path), tmp_path / "red")) == 1
    with pytest.raises(DataError, match=r"images/0.png of it would be the translation of two images of folder:"):
        translated_data(open_data(f"{one}+{other}", tmp_path), tmp_path / "red")


def test_a_training_learns_from_them_and_goes_on_with_the_same_ones_only(camvid, tmp_path, said):
    folder = painted(camvid, tmp_path / "red", size=(32, 24))
    recipe = small_recipe(camvid).override("evaluate.data=[]", "steps=2", f"data.source.images={folder}")
    training = assemble(recipe, camvid, None)
    (batch,) = next(training.batches(1, 0))
    inside = batch.source.image[:, 0][batch.source.label != 255]
    assert set(inside.unique().tolist()) == {200}
    assert not (batch.target.image[:, 0] == 200).all()
    train(recipe, tmp_path / "run")
    assert f"{SPEC}: images from {folder}" in said
    Image.new("RGB", (64, 48), (1, 2, 3)).save(folder / open_data(SPEC, camvid).images[0])
    with pytest.raises(RunError, match="was begun with other data"):
        train(recipe.override("steps=3"), tmp_path / "run", resume=True, allow_changed=["steps"])
