"""Folders of one's own: images and labels that a YAML file tells of, without code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from conftest import small_recipe
from layouts import refused, save
from segda.cli.main import main
from segda.commands.check_data import check_data
from segda.commands.train import train
from segda.data.labels.spaces import SPACES
from segda.data.sets.datasets import open_data
from segda.data.sets.labelled import open_labelled
from segda.data.sets.specs import data_sets, own_space, parse
from segda.errors import DataError, RecipeError
from segda.scene import IGNORE

HARBOUR = """
splits:
  train: {images: photos/train, labels: masks/train}
  night: {images: "photos/night/{key}_rgb.jpg"}
  val: {images: photos/val, labels: "masks/val/{key}_mask.png"}
classes:
  water: {id: 0, colour: [0, 0, 255]}
  ship: {id: [1, 2], colour: [255, 0, 0]}
  quay: {id: 9}
ignored: [7]
"""
IDS = np.array([[0, 1, 2, 9], [7, 255, 0, 0]], np.uint8)
LABEL = [[0, 1, 1, 2], [255, 255, 0, 0]]


@pytest.fixture
def harbour(tmp_path, monkeypatch):
    """A spec without its split; two images of train, one of night and of val, beside the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my data"
    for path in ("photos/train/a.png", "photos/train/b.jpg", "photos/night/c_rgb.jpg", "photos/val/d.jpeg"):
        save(folder / path, np.full((2, 4, 3), 100, np.uint8))
    for path in ("masks/train/a.png", "masks/train/b.png", "masks/val/d_mask.png"):
        save(folder / path, IDS, palette=path.endswith("b.png"))
    (folder / "harbour.yaml").write_text(HARBOUR)
    return "folder:my data/harbour.yaml"


def test_images_and_labels_are_found_and_read(harbour, tmp_path):
    data = open_data(f"{harbour}:train")
    assert data.names == ("a", "b") and data.image_path(1) == data.folder / "photos/train/b.jpg"
    assert data.folder.resolve() == tmp_path / "my data"
    data.check_pairs()
    for i in range(2):
        assert data.read(i, label=True).label.tolist() == LABEL
    assert data.class_counts(0).tolist() == [3, 2, 1, 2]
    val = open_data(f"{harbour}:val")
    assert val.names == ("d",) and val.read(0, label=True).label.tolist() == LABEL


def test_its_space_has_its_classes_in_their_order_and_colours(harbour):
    space = own_space(f"{harbour}:train")
    assert (space.name, space.classes) == ("harbour", ("water", "ship", "quay"))
    assert space.colours["ship"] == (255, 0, 0) and len(set(space.colours.values())) == 3
    assert data_sets(f"{harbour}:train+camvid:val") == {harbour, "camvid"} and parse(f"{harbour}:val")[1] == "val"


def test_the_file_in_the_documentation_is_read(harbour, tmp_path):
    shown = (Path(__file__).parents[2] / "docs/DATA.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```yaml\n(# harbour.yaml\n.*?)```", shown, re.DOTALL)
    (tmp_path / "my data/harbour.yaml").write_text(block)
    assert len(open_data(f"{harbour}:train")) == 2 and len(open_data(f"{harbour}:night")) == 1
    save(tmp_path / "my data/masks/val/d_mask.png", np.array([[0, 1, 2, 7], [255] * 4], np.uint8))
    assert open_data(f"{harbour}:val").class_counts(0).tolist() == [1, 2, 5]


@pytest.mark.parametrize("begin", ["{folder}/", "./", ""])
def test_paths_begin_at_the_file_or_at_the_root_of_the_disk(harbour, tmp_path, begin):
    begin = begin.format(folder=tmp_path / "my data")
    splits = {
        "train": {"images": f"{begin}photos/train/", "labels": f"{begin}masks/train"},
        "val": {"images": begin + "photos/val/{key}.jpeg", "labels": begin + "masks/val/{key}_mask.png"},
    }
    (tmp_path / "my data/harbour.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(HARBOUR) | {"splits": splits}, sort_keys=False)
    )
    for split, names in (("train", ("a", "b")), ("val", ("d",))):
        data = open_data(f"{harbour}:{split}")
        assert data.names == names and data.read(0, label=True).label.tolist() == LABEL
        data.check_pairs()
    data.label_path(0).with_name("e_mask.png").write_bytes(b"")
    assert [path.name for path in data.labels_without_image()] == ["e_mask.png"]


def test_images_may_lie_beside_the_file(harbour, tmp_path):
    (tmp_path / "my data/harbour.yaml").write_text("splits: {train: {images: ''}}\nclasses: {a: {id: 0}}\n")
    save(tmp_path / "my data/a.png", np.zeros((2, 4, 3), np.uint8))
    assert open_data(f"{harbour}:train").image_path(0).resolve() == tmp_path / "my data/a.png"


def test_two_files_of_one_name_have_spaces_of_their_own(harbour, tmp_path):
    other = tmp_path / "other" / "harbour.yaml"
    other.parent.mkdir()
    both = f"{harbour}:train+folder:{other}:train"
    told = yaml.safe_load(HARBOUR) | {"root": "../my data"}
    other.write_text(yaml.safe_dump(told, sort_keys=False))
    assert own_space(both).classes == ("water", "ship", "quay")
    other.write_text(yaml.safe_dump(told | {"classes": {"water": {"id": 0}, "boat": {"id": [1, 2, 9]}}}))
    with pytest.raises(RecipeError, match="label spaces harbour, harbour; choose with data.space"):
        own_space(both)


def test_a_split_without_labels_is_a_target(harbour):
    data = open_data(f"{harbour}:night")
    assert data.names == ("c_rgb",) and data.read(0).label is None and not data.labelled(0)
    with pytest.raises(
        DataError, match="the split has no labels: splits.night in my data/harbour.yaml names none; add labels"
    ):
        data.check_pairs()
    report = check_data(f"{harbour}:night")
    assert report.usable and report.labels == 0 and report.notes == []
    with pytest.raises(DataError, match="the split has no labels"):
        open_labelled(f"{harbour}:night", None, data.space)


def test_masks_of_0_and_255_are_two_classes(tmp_path):
    (tmp_path / "masks.yaml").write_text(
        "splits: {train: {images: i, labels: l}}\nclasses: {background: {id: 0}, tumour: {id: 255}}"
    )
    save(tmp_path / "i/a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "l/a.png", np.array([[0, 255, 255]], np.uint8))
    data = open_data(f"folder:{tmp_path}/masks.yaml:train")
    assert data.read(0, label=True).label.tolist() == [[0, 1, 1]] and data.class_counts(0).tolist() == [1, 2, 0]


def test_labels_may_be_colours(tmp_path):
    told = {
        "splits": {"train": {"images": "i", "labels": "l"}},
        "classes": {"water": {"colour": [0, 0, 255]}, "ship": {"colour": [255, 0, 0]}},
        "labels_are": "colours",
        "ignored": [[0, 0, 0]],
    }
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(told, sort_keys=False))
    save(tmp_path / "i/a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "l/a.png", np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]]], np.uint8))
    data = open_data(f"folder:{tmp_path}/x.yaml:train")
    assert data.read(0, label=True).label.tolist() == [[1, 0, IGNORE]]
    save(tmp_path / "l/a.png", np.array([[[255, 0, 0], [0, 0, 254], [0, 0, 0]]], np.uint8))
    assert "[0, 0, 254] (1 pixels); give each to a class in the YAML file, or write ignored" in refused(
        data, tmp_path / "l/a.png"
    )


def many(tmp_path: Path, count: int) -> str:
    """An image and a label of the ids 0 to count - 1, each a class."""
    save(tmp_path / "i/a.png", np.zeros((2, count, 3), np.uint8))
    (tmp_path / "l").mkdir()
    Image.fromarray(np.stack([np.arange(count, dtype=np.uint16)] * 2)).save(tmp_path / "l/a.png")
    classes = {f"class {id}": {"id": id} for id in range(count)}
    (tmp_path / "many.yaml").write_text(
        yaml.safe_dump({"splits": {"train": {"images": "i", "labels": "l"}}, "classes": classes}, sort_keys=False)
    )
    return f"folder:{tmp_path}/many.yaml:train"


def test_there_may_be_254_classes(tmp_path):
    data = open_data(many(tmp_path, 254))
    assert data.read(0, label=True).label.tolist() == [[*range(254)]] * 2


def test_more_classes_than_a_byte_holds_are_refused_with_the_ways_out(tmp_path, capsys):
    spec = many(tmp_path, 255)
    recipe = small_recipe(tmp_path / "data").override(f"data.source.set={spec}", f"data.target.set={spec}")
    with pytest.raises(RecipeError) as caught:
        train(recipe, tmp_path / "run")
    said = str(caught.value)
    assert main(["check-data", spec]) == 2
    assert capsys.readouterr().err == f"segda: {said}\n"
    for words in ("255 classes, more than 254", "one byte a pixel", "255 what is ignored", "{tree: {id: [3, 300]}}"):
        assert words in said
    assert not (tmp_path / "run").exists()
    joined = yaml.safe_load((tmp_path / "many.yaml").read_text())
    joined["classes"] = {"low": {"id": [*range(100)]}, "high": {"id": [*range(100, 255)]}}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(joined, sort_keys=False))
    assert open_data(spec).class_counts(0).tolist() == [200, 310, 0]


def test_classes_may_be_those_of_a_known_space(harbour, tmp_path):
    path = tmp_path / "my data" / "harbour.yaml"
    told = yaml.safe_load(HARBOUR)
    told["classes"]["road"] = {"id": 40}
    path.write_text(yaml.safe_dump(told | {"space": "cityscapes-19", "becomes": {"ship": "car"}}))
    data = open_data(f"{harbour}:train")
    assert data.space is SPACES["cityscapes-19"]
    assert data.read(0, label=True).label.tolist() == [[255, 13, 13, 255], [255] * 4]
    both = open_data(f"{harbour}:train+{harbour}:val")
    assert len(both) == 3 and not any("/" in name or ":" in name for name in both.names)


def test_a_network_is_trained_on_it_and_measured(harbour, tmp_path):
    for path in (tmp_path / "my data").rglob("*.[pj]*g"):
        large = (
            np.kron(IDS, np.ones((24, 16), np.uint8)) if "masks" in str(path) else np.full((48, 64, 3), 90, np.uint8)
        )
        save(path, large)
    settings = [
        f"data.source.set={harbour}:train", f"data.target.set={harbour}:night", f"evaluate.data=['{harbour}:val']",
        "steps=1",
    ]  # fmt: skip
    train(small_recipe(tmp_path).override(*settings), tmp_path / "run")
    (path,) = (tmp_path / "run/reports").iterdir()
    (report,) = json.loads(path.read_text())
    assert report["classes"] == ["water", "ship", "quay"] and report["protocol"]["data"] == f"{harbour}:val"


# What is wrong with it.


def test_an_id_that_nobody_names_is_refused(harbour, tmp_path):
    data = open_data(f"{harbour}:train")
    save(data.label_path(0), np.array([[0, 1, 2, 8], [8, 255, 0, 0]], np.uint8))
    message = refused(data, data.label_path(0))
    assert "has id 8 (2 pixels), which no class has; give it to one in the YAML file, or write ignored: [8]" in message


def test_a_label_that_is_missing_is_named(harbour):
    data = open_data(f"{harbour}:val")
    data.label_path(0).unlink()
    with pytest.raises(
        DataError,
        match=r"1 of 1 images have no label, first .*d.jpeg \(looked for .*d_mask.png\); there is no label in",
    ):
        data.check_pairs()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": {}}, "splits and classes must name one at least"),
        ({"splits": {"train": {"image": "x"}}}, "splits.train: unknown key 'image'; did you mean 'images'?"),
        ({"classes": {"a": {"id": 65536}}}, "classes.a.id: got 65536; write the value that it has in label files"),
        ({"classes": {"a": {"id": 3}, "b": {"id": [2, 3]}}}, "a and b have the same id 3; give each its own"),
        ({"classes": {"a": {}}}, "classes.a has no id; give the value"),
        ({"classes": {"a": {"id": 1, "colour": [1, 2]}}}, "classes.a.colour: got [1, 2]; write three numbers"),
        ({"ignored": [1]}, "id 1 is ship and ignored; choose"),
        (
            {"labels_are": "colours", "classes": {"a": {"colour": [1, 2, 3]}}, "ignored": [[1, 2, 3]]},
            "colour [1, 2, 3] is a and ignored; choose",
        ),
        ({"splits": {"train": {"images": "x", "labels": "y/{key}_*.png"}}}, "y/{key}_*.png: an image has one label"),
        ({"splits": {"train": {"images": "x"}, "a+b": {"images": "x"}}}, "splits.a+b: '+' separates the parts"),
        ({"ignored": [[1, 2, 3]]}, "where labels are ids, write ids"),
        ({"labels_are": "colours"}, "classes.quay has no colour, and labels_are says colours"),
        ({"labels_are": "pictures"}, "labels_are"),
        ({"labels_are": "colours", "classes": {"a": {"colour": [1, 2, 3]}}}, "where labels are colours, write colours"),
        (
            {"labels_are": "colours", "classes": {"a": {"colour": [1, 2, 3]}, "b": {"colour": [1, 2, 3]}}},
            "two classes have one colour",
        ),
        ({"becomes": {"ship": "car"}}, "becomes: has no effect without space"),
        ({"space": "cityscapes-91"}, "unknown label space 'cityscapes-91'; did you mean 'cityscapes-19'?"),
        ({"space": "cityscapes-19", "becomes": {"ship": "cra"}}, "cityscapes-19 has no 'cra'; did you mean 'car'?"),
        ({"space": "cityscapes-19", "becomes": {"shpi": "car"}}, "becomes.shpi: there is no such class"),
        ({"space": "cityscapes-19"}, "its labels know quay, ship, water, and none of the classes road, sidewalk"),
        ({"colour": 3}, "unknown key 'colour'; known: becomes, classes"),
    ],
)
def test_what_is_wrong_in_the_file_is_said_with_its_place(harbour, tmp_path, change, message):
    (tmp_path / "my data/harbour.yaml").write_text(yaml.safe_dump(yaml.safe_load(HARBOUR) | change))
    with pytest.raises(RecipeError) as caught:
        open_data(f"{harbour}:train")
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[", "- 1", "", "\x00"])
def test_what_is_no_such_file_is_refused(harbour, tmp_path, text):
    (tmp_path / "my data/harbour.yaml").write_text(text)
    with pytest.raises(RecipeError, match="harbour.yaml"):
        open_data(f"{harbour}:train")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("folder:absent.yaml:train", "folder:absent.yaml: no such file; it says where"),
        ("folder:my data/harbour.yaml:vla", "my data/harbour.yaml has no split 'vla'; did you mean 'val'?"),
        ("folder:my data/harbour.yaml", "folder:my data/harbour.yaml"),
        ("folder:", "a folder of your own is written folder:FILE.yaml:split"),
        ("folder:train", "a folder of your own is written folder:FILE.yaml:split"),
    ],
)
def test_a_wrong_spec_is_explained(harbour, spec, message):
    with pytest.raises(RecipeError) as caught:
        open_data(spec)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_images_is_named(harbour, tmp_path):
    for path in (tmp_path / "my data/photos/val").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"no images match .*photos/val/\*.\*; correct splits.val in the YAML file"):
        open_data(f"{harbour}:val")


def test_the_file_is_read_again_when_it_has_changed(harbour, tmp_path):
    path = tmp_path / "my data/harbour.yaml"
    assert torch.equal(open_data(f"{harbour}:train").read(0, label=True).label, torch.tensor(LABEL, dtype=torch.uint8))
    path.write_text(HARBOUR.replace("id: 9", "id: [9, 7]").replace("ignored: [7]", ""))
    assert open_data(f"{harbour}:train").read(0, label=True).label[1, 0] == 2
