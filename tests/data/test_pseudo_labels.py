"""A folder of pseudo-labels: what opening one refuses, and how its labels travel with the target's images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from segda.data.labels.pseudo_labels import PseudoLabels, read_summary, write_label, write_summary
from segda.data.labels.spaces import SPACES
from segda.data.sets.datasets import open_data
from segda.data.stream.augment import resize, scaled_size
from segda.data.stream.loading import loader
from segda.data.stream.settings import Augment
from segda.data.stream.stream import Stream
from segda.errors import DataError, RecipeError
from segda.scene import IGNORE

SPACE = SPACES["camvid-11"]
DUSK = "camvid:train:dusk"
AS_IT_IS = {"resize": None, "shape": "keep"}
SUMMARY = {"data": DUSK, "class_names": SPACE.classes, "input": AS_IT_IS}
CROP = Augment(resize=None, crop=(32, 32), max_class_share=None, flip=0.5)
WHOLE = Augment(resize=None, crop=None, max_class_share=None, flip=0.5)


def label_of(name: str, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Any label, the same for the same name."""
    label = np.random.default_rng(sum(name.encode())).integers(0, 12, size).astype(np.uint8)
    return np.where(label == 11, IGNORE, label).astype(np.uint8)


@pytest.fixture
def folder(camvid, tmp_path):
    """Pseudo-labels of the small CamVid's dusk."""
    folder = tmp_path / "labels"
    for name in open_data(DUSK, camvid).names:
        write_label(folder, name, label_of(name), SPACE)
    write_summary(folder, SUMMARY)
    return folder


def opened(folder, camvid, spec=DUSK, space=SPACE):
    return PseudoLabels.open(folder, open_data(spec, camvid), space)


def said(folder, camvid, **given) -> str:
    with pytest.raises(DataError) as caught:
        opened(folder, camvid, **given)
    message = str(caught.value)
    assert "\n" not in message and str(folder) in message
    return message


def test_labels_come_back_as_they_were_written(folder, camvid):
    labels = opened(folder, camvid)
    for i, name in enumerate(("0001TP_001", "0001TP_002", "0001TP_003")):
        assert (labels.read(i, (48, 64)).numpy() == label_of(name)).all()
        with Image.open(folder / f"{name}.png") as picture:
            assert picture.mode == "P"
            colours = np.array(picture.convert("RGB"))
        assert (colours == SPACE.palette()[label_of(name)]).all()


def test_labels_of_a_whole_split_serve_a_part_of_it(folder, camvid):
    write_summary(folder, SUMMARY | {"data": "camvid:train"})
    assert opened(folder, camvid).names == ("0001TP_001", "0001TP_002", "0001TP_003")


def test_ground_truth_is_no_pseudo_label(camvid):
    assert "pseudo_labels.json" in said(camvid / "camvid" / "trainannot", camvid)


def test_a_folder_that_is_not_there_says_how_to_make_it(camvid, tmp_path):
    assert "segda pseudo-label RUN --data camvid:train:dusk" in said(tmp_path / "nowhere", camvid)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"format": "other"}', '"text"'])
def test_a_summary_that_is_not_ours_is_refused(folder, camvid, text):
    (folder / "pseudo_labels.json").write_text(text)
    assert "pseudo_labels.json" in said(folder, camvid)


@pytest.mark.parametrize("key", ["data", "class_names", "input"])
def test_a_summary_that_lacks_something_is_refused(folder, camvid, key):
    write_summary(folder, {name: value for name, value in SUMMARY.items() if name != key})
    assert f"'{key}'" in said(folder, camvid)


def test_labels_in_other_classes_are_refused(folder, camvid):
    write_summary(folder, SUMMARY | {"class_names": ["sky", "house", *SPACE.classes[2:]]})
    assert "'house' where camvid-11 has 'building'" in said(folder, camvid)
    write_summary(folder, SUMMARY | {"class_names": SPACE.classes[:4]})
    assert "4 classes where camvid-11 has 11" in said(folder, camvid)


def test_labels_of_another_data_set_are_refused(folder, camvid):
    write_summary(folder, SUMMARY | {"data": "streets:train:fog"})
    assert "labels of streets:train:fog, not of camvid:train:dusk" in said(folder, camvid)


def test_a_missing_label_is_named(folder, camvid):
    (folder / "0001TP_002.png").unlink()
    message = said(folder, camvid)
    assert "0001TP_002.png" in message and "1 of 3 images" in message
    assert "4 of 4 images" in said(folder, camvid, spec="camvid:train:day")


@pytest.mark.parametrize("value", [11, 200, 254])
def test_a_value_that_is_no_class_is_named_with_its_file(folder, camvid, value):
    label = label_of("0001TP_002")
    label[3, 5] = value
    write_label(folder, "0001TP_002", label, SPACE)
    with pytest.raises(DataError, match=rf"0001TP_002\.png has the value {value} \(1 pixels\)"):
        opened(folder, camvid).read(1)


def test_a_label_of_another_size_is_named(folder, camvid):
    write_label(folder, "0001TP_003", label_of("0001TP_003", (48, 63)), SPACE)
    with pytest.raises(DataError, match=r"0001TP_003\.png is 63x48, where the label of its 64x48 image .* is 64x48"):
        opened(folder, camvid).read(2, (48, 64))


@pytest.mark.parametrize("damage", ["cut", "colour", "text"])
def test_a_damaged_label_is_named(folder, camvid, damage):
    path = folder / "0001TP_001.png"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "text":
        path.write_text("no picture")
    else:
        Image.new("RGB", (64, 48)).save(path)
    with pytest.raises(DataError, match=r"0001TP_001\.png"):
        opened(folder, camvid).read(0)


def pairs_of(camvid, augment, labels=None) -> Stream:
    day, dusk = open_data("camvid:train:day", camvid), open_data(DUSK, camvid)
    return Stream(day, dusk, 3, CROP, augment, target_labels=labels)


def picture_of(label: np.ndarray) -> np.ndarray:
    """An image whose red channel is the label: after crop and flip it must still be."""
    return np.stack([label, np.zeros_like(label), np.zeros_like(label)], 2)


@pytest.mark.parametrize("augment", [CROP, WHOLE, CROP.model_copy(update={"crop": (60, 50)})])
def test_the_label_is_cropped_flipped_and_padded_with_its_image(folder, camvid, augment):
    for path in sorted((camvid / "camvid" / "train").glob("0001TP*")):
        Image.fromarray(picture_of(label_of(path.stem))).save(path)
    pairs = pairs_of(camvid, augment, opened(folder, camvid))
    flips = set()
    for n in range(8):
        target = pairs[n][1]
        red = target.image[0].numpy()
        filled = (target.image[2] > 0).numpy()  # padding has the mean colour, our images have no blue
        assert (target.label.numpy() == np.where(filled, IGNORE, red)).all()
        assert filled.any() == (augment.crop == (60, 50))
        flips.add((target.names[0], target.image.numpy().tobytes()))
    assert len(flips) > 3


def test_labels_change_no_image_and_no_crop(folder, camvid):
    plain, labelled = pairs_of(camvid, CROP), pairs_of(camvid, CROP, opened(folder, camvid))
    for n in range(8):
        for ours, theirs in zip(labelled[n][:2], plain[n][:2], strict=True):
            assert torch.equal(ours.image, theirs.image) and ours.names == theirs.names
        assert plain[n][1].label is None and torch.equal(labelled[n][0].label, plain[n][0].label)


def test_batches_have_the_targets_labels_whatever_the_number_of_workers(folder, camvid):
    pairs = pairs_of(camvid, CROP, opened(folder, camvid))
    ours, theirs = (list(loader(pairs, 2, 0, 3, workers, seed=3)) for workers in (0, 1))
    for (one,), (other,) in zip(ours, theirs, strict=True):
        assert one.target.label.shape == (2, 32, 32) and torch.equal(one.target.label, other.target.label)


@pytest.mark.parametrize("shape", ["keep", "stretch", "pad"])
@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", [(32, 24), (40, 30), (50, 24), (20, 40), (90, 80)])
def test_a_label_of_the_networks_input_size_lies_on_the_resized_image(camvid, tmp_path, shape, kernel, box):
    folder, dusk = tmp_path / "labels", open_data(DUSK, camvid)
    size = scaled_size((48, 64), box, shape)
    for name in dusk.names:
        write_label(folder, name, label_of(name, size), SPACE)
    write_summary(folder, SUMMARY | {"input": {"resize": box, "shape": shape}})
    settings = Augment(resize=box, shape=shape, kernel=kernel, crop=None, max_class_share=None, flip=0)
    target = pairs_of(camvid, settings, opened(folder, camvid))[0][1]
    image = resize(dusk.read(dusk.names.index(target.names[0])), box, shape, kernel).image
    assert torch.equal(target.image, image) and target.label.shape == image.shape[1:]
    # The same size before and behind: the label as it was written, and nothing around it.
    ours = target.label.numpy()
    assert (ours[: size[0], : size[1]] == label_of(target.names[0], size)).all()
    ours[: size[0], : size[1]] = IGNORE
    assert (ours == IGNORE).all()


def test_a_label_made_small_is_brought_to_the_size_that_training_uses(folder, camvid):
    dusk = open_data(DUSK, camvid)
    for name in dusk.names:
        write_label(folder, name, label_of(name, (24, 32)), SPACE)
    write_summary(folder, SUMMARY | {"input": {"resize": [32, 24], "shape": "keep"}})
    target = pairs_of(camvid, CROP.model_copy(update={"crop": None, "flip": 0.0}), opened(folder, camvid))[0][1]
    assert (target.label.numpy() == np.kron(label_of(target.names[0], (24, 32)), np.ones((2, 2)))).all()


def test_a_target_with_labels_still_has_no_limit_for_one_class(folder, camvid):
    with pytest.raises(RecipeError, match="max_class_share"):
        pairs_of(camvid, CROP.model_copy(update={"max_class_share": 0.75}), opened(folder, camvid))


def test_the_summary_tells_what_it_was_told(folder):
    assert read_summary(folder)["data"] == DUSK
    assert json.loads((folder / "pseudo_labels.json").read_text())["format"] == "segda pseudo-labels 1"
