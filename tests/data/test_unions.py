"""Several data sets as one, `NAME:SPLIT+NAME:SPLIT`: which image is where, what is said of them, how they are used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import small_recipe
from layouts import LAYOUTS, save, write_row
from segda.commands.check_data import check_data
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.data.labels.pseudo_labels import PseudoLabels
from segda.data.labels.spaces import SPACES
from segda.data.sets import streets as street_sets
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.dataset import image_weights
from segda.data.sets.datasets import open_data
from segda.data.sets.files import FileSet
from segda.data.sets.labelled import open_labelled
from segda.data.sets.specs import data_sets, own_space
from segda.data.stream.settings import Augment, RareClass
from segda.data.stream.stream import SOURCE, TARGET, Stream, class_probabilities
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError, RecipeError

FOGGY, RAINY = "cityscapes-foggy:train", "cityscapes-rain:train"
BOTH = f"{FOGGY}+{RAINY}"
DAYS = "camvid:train:day+camvid:val"


def template_of(name: str) -> tuple[str, str]:
    return next((template, labelling) for of, template, labelling in LAYOUTS if of == name)


@pytest.fixture
def weather(tmp_path):
    """Foggy and Rain Cityscapes in one folder, six images each: two scenes in three strengths, with shared labels."""
    for name in ("cityscapes-foggy", "cityscapes-rain"):
        write_row(tmp_path / "cityscapes", name, *template_of(name))
    return tmp_path


def test_the_images_of_a_union_are_those_of_its_parts_in_their_order(weather):
    both, parts = open_data(BOTH, weather), [open_data(spec, weather) for spec in (FOGGY, RAINY)]
    assert len(both) == sum(map(len, parts)) == 12
    at = 0
    for part in parts:
        for i in range(len(part)):
            assert both.image_path(at) == part.image_path(i) and both.label_place(at) == str(part.label_path(i))
            assert both.labelled(at)
            ours, theirs = both.read(at, label=True), part.read(i, label=True)
            assert torch.equal(ours.image, theirs.image) and torch.equal(ours.label, theirs.label)
            assert both.read(at).label is None
            assert (both.class_counts(at) == part.class_counts(i)).all()
            assert all((a == b).all() for a, b in zip(both.label_ids(at), part.label_ids(i), strict=True))
            assert ours.names == (both.names[at],) and both.names[at].endswith(part.names[i])
            at += 1
    with pytest.raises(AssertionError):
        both.at(12)


def test_a_union_may_have_one_stem_twice_and_its_names_tell_them_apart(tmp_path):
    for name in ("gta5", "synthia"):
        write_row(tmp_path / name, name, *template_of(name))
    both = open_data("gta5:train+synthia:train", tmp_path, SPACES["cityscapes-19"])
    assert both.names == (
        "gta5-train_00001", "gta5-train_00002", "synthia-train_scene_0", "synthia-train_scene_1",
    )  # fmt: skip
    assert both.read(3).names == ("synthia-train_scene_1",)


def test_parts_with_spaces_of_their_own_need_a_common_one(tmp_path):
    with pytest.raises(RecipeError, match="label spaces cityscapes-19, synthia-16; choose with data.space"):
        open_data("gta5:train+synthia:train", tmp_path)
    assert own_space(BOTH).name == "cityscapes-19" and own_space("synthia:train").name == "synthia-16"


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (f"{FOGGY}+{FOGGY}", RecipeError, f"{FOGGY} has images of {FOGGY}, first leftImg8bit_foggy/"),
        (f"{FOGGY}:0.01+{FOGGY}", RecipeError, f"{FOGGY} has images of {FOGGY}:0.01, first leftImg8bit_foggy/"),
        ("streets:val+streets:val:day", RecipeError, "has images of streets:val, first val_day_"),
        (f"{FOGGY}+", RecipeError, "'': unknown data set ''"),
        (f"{FOGGY}+cityscapes-rian:train", RecipeError, "did you mean 'cityscapes-rain'"),
        (f"{FOGGY}+acdc:train", DataError, "acdc:train: no folder"),
    ],
)
def test_what_is_no_union_is_explained(weather, spec, error, message):
    with pytest.raises(error) as caught:
        open_data(spec, weather)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_label_and_a_missing_image_of_any_part_are_found(camvid):
    both = open_data(DAYS, camvid)
    both.check_pairs()
    (camvid / "camvid/val/0016E5_101.png").unlink()
    spare = open_data(DAYS, camvid).labels_without_image()
    assert spare == [camvid / "camvid/valannot/0016E5_101.png"]
    Path(both.label_place(4)).unlink()
    with pytest.raises(DataError, match=r"^camvid:val: 1 of 2 images have no label"):
        both.check_pairs()


def test_the_statistics_of_a_union_are_its_parts_and_are_kept(camvid, tmp_path, monkeypatch):
    both = open_data(DAYS, camvid)
    theirs = np.concatenate([class_statistics(part, None) for part in both.parts])
    assert (class_statistics(both, tmp_path / "cache") == theirs).all()
    monkeypatch.setattr(FileSet, "class_counts", lambda self, i: pytest.fail("counted again"))
    assert (class_statistics(both, tmp_path / "cache") == theirs).all()
    monkeypatch.undo()
    save(Path(both.label_place(5)), np.zeros((48, 64), np.uint8))
    counts = class_statistics(both, tmp_path / "cache")
    assert counts[5, 0] == 48 * 64 and (counts[:5] == theirs[:5]).all()


WEIGHTED = "camvid:train:day*3+camvid:val"


def pairs_of(source, target, rare=None, statistics=None) -> Stream:
    look = Augment(resize=None, crop=(8, 8), max_class_share=None, flip=0.5)
    return Stream(source, target, 5, look, look, rare, statistics)


def test_a_part_is_drawn_as_often_as_its_weight_says_whatever_its_size(camvid):
    # 4 images by 3, 2 images by 1: three quarters of the draws are of the first four.
    both, plain = open_data(WEIGHTED, camvid), open_data(DAYS, camvid)
    assert both.shares == (0.75, 0.25) and both.names == plain.names and plain.shares is None
    assert image_weights(both).tolist() == [3 / 16] * 4 + [1 / 8] * 2
    pairs = pairs_of(both, both)
    draws = [pairs._next(both, SOURCE, n) for n in range(4000)]
    share = np.bincount(draws, minlength=6) / 4000
    assert abs(share[:4].sum() - 0.75) < 0.03  # four standard deviations of 4000 draws
    assert np.abs(share - image_weights(both)).max() < 0.03
    assert draws == [pairs_of(both, both)._next(both, SOURCE, n) for n in range(4000)]
    assert draws != [pairs._next(both, TARGET, n) for n in range(4000)]


def test_equal_weights_are_not_the_same_as_none(camvid):
    equal = open_data("camvid:train:day*1+camvid:val*1", camvid)
    assert equal.shares == (0.5, 0.5) and open_data(DAYS, camvid).shares is None
    draws = [pairs_of(equal, equal)._next(equal, TARGET, n) for n in range(2000)]
    assert abs(np.mean(np.array(draws) >= 4) - 0.5) < 0.05


def test_draws_without_weights_are_those_of_before(camvid):
    data = open_data(DAYS, camvid)
    pairs = pairs_of(data, data)
    for epoch in range(3):
        draws = [pairs._next(data, SOURCE, 6 * epoch + k) for k in range(6)]
        assert draws == np.random.default_rng((5, SOURCE, epoch, 6)).permutation(6).tolist()


def test_rare_classes_are_drawn_from_parts_by_their_weights(camvid):
    rare = RareClass(temperature=0.1, min_pixels=1, crop_ratio=0, retries=0)
    both = open_data("camvid:train:day*9+camvid:val", camvid)
    counts = class_statistics(both, None)
    pairs = pairs_of(both, both, rare, counts)
    picks = np.array([pairs.pick(np.random.default_rng(n)) for n in range(3000)])
    for wanted in np.unique(picks[:, 0]):
        enough = counts[:, wanted] > 1
        theirs = np.where(enough, image_weights(both), 0)
        ours = np.bincount(picks[picks[:, 0] == wanted, 1], minlength=6)
        spread = np.sqrt(ours.sum())  # four standard deviations at most, since p (1 - p) <= 1/4
        assert np.abs(ours - ours.sum() * theirs / theirs.sum()).max() < 2 * spread
        assert not ours[~enough].any()
    weighted = sum(w * c for w, c in zip(image_weights(both), counts[:, :-1], strict=True))
    assert np.allclose(pairs.probability, class_probabilities(weighted, 0.1))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvid:val*2", "a weight has no effect on a data set alone; leave out the *"),
        ("camvid:val*0+camvid:test", "'0' is no weight; write a number above 0 behind the *"),
        ("camvid:val*-1+camvid:test", "'-1' is no weight"),
        ("camvid:val*nan+camvid:test", "'nan' is no weight"),
        ("camvid:val*inf+camvid:test", "'inf' is no weight"),
        ("camvid:val*two+camvid:test", "'two' is no weight"),
        ("camvid:val*+camvid:test", "'' is no weight"),
        ("2*camvid:val+camvid:test", "'camvid:val' is no weight"),
    ],
)
def test_a_weight_that_is_none_is_refused(camvid, spec, message):
    with pytest.raises(RecipeError) as caught:
        open_data(spec, camvid)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_weights_are_for_training_alone(camvid, tmp_path):
    with pytest.raises(RecipeError, match=r"weights say how often images are drawn in training; leave them out here"):
        open_labelled(WEIGHTED, camvid, SPACES["camvid-11"])
    train(small_recipe(camvid).override(f"data.source.set={WEIGHTED}", "steps=1", "evaluate.data=[]"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"weights say how often images are drawn in training; leave them out here"):
        pseudo_label([tmp_path / "run"], WEIGHTED, {"name": "fixed", "level": 0.1}, tmp_path / "out", root=camvid)
    assert data_sets(WEIGHTED) == {"camvid"} and own_space(WEIGHTED).name == "camvid-11"


def test_the_marks_of_a_union_tell_its_parts_apart(camvid):
    marks = [list(open_data(spec, camvid).label_marks()) for spec in (DAYS, "camvid:val+camvid:train:day")]
    assert marks[0] != marks[1] and sorted(marks[0]) == sorted(marks[1])


def test_a_union_is_checked_part_by_part(camvid, tmp_path, monkeypatch):
    report = check_data(DAYS, camvid, out=tmp_path / "sheet")
    assert report.verdict == "usable" and (report.images, report.labels) == (6, 6) and report.sheet.is_file()
    whole = [check_data(part, camvid).class_counts for part in DAYS.split("+")]
    assert (report.class_counts == sum(whole)).all()
    assert report.where == f"{camvid / 'camvid'}, {camvid / 'camvid'}"
    monkeypatch.setattr(street_sets, "SIZE", (16, 32))
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 2))
    drawn = check_data("camvid:val+streets:val", camvid, SPACES["camvid-11"])
    assert drawn.where.endswith(", drawn")


def test_a_network_is_trained_on_unions_scored_on_them_and_labels_them(camvid, tmp_path):
    target = "camvid:train:dusk+camvid:test:dusk"
    settings = [f"data.source.set={DAYS}", f"data.target.set={target}", f"evaluate.data=[{target}]", "steps=2"]
    rare = "data.source.rare_class={temperature: 0.1, min_pixels: 10, crop_ratio: 0.5, retries: 2}"
    train(small_recipe(camvid, "dacs").override(*settings, rare), tmp_path / "run")
    reports = [json.loads(path.read_text()) for path in (tmp_path / "run/reports").glob("*.json")]
    assert {report["protocol"]["data"] for entry in reports for report in entry} == {target}
    pseudo_label([tmp_path / "run"], target, {"name": "fixed", "level": 0.1}, tmp_path / "labels", root=camvid)
    data = open_data(target, camvid)
    labels = PseudoLabels.open(tmp_path / "labels", data, data.space)
    assert labels.names == data.names and labels.read(5, (48, 64)).shape == (48, 64)
    with pytest.raises(DataError, match="no such pseudo-label"):
        PseudoLabels.open(tmp_path / "labels", open_data("camvid:train:dusk", camvid), data.space)
    assert data_sets(target) == {"camvid"} and data_sets(BOTH) == {"cityscapes-foggy", "cityscapes-rain"}
