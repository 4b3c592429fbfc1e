"""Pseudo-labels in the place of a source's own labels: of one data set, of a part of a union, at the images' size."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import small_recipe
from segda.commands.train import train
from segda.data.labels.pseudo_labels import write_label, write_summary
from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.sets.relabelled import relabelled
from segda.errors import DataError
from segda.run import load_recipe_of, read_log
from segda.scene import IGNORE

DAY, DUSK = "camvid:train:day", "camvid:train:dusk"


def made(folder, root, spec=DUSK, resize=(32, 24), **changes):
    """A folder of labels of half the size: columns of classes, the last one ignored."""
    data = open_data(spec, root)
    folder.mkdir(exist_ok=True)
    column = np.array([*range(7), IGNORE], np.uint8)
    for name in data.names:
        write_label(folder, name, np.repeat(np.tile(column, (24, 1)), 4, 1), data.space)
    summary = {
        "data": spec, "class_names": data.space.classes, "input": {"resize": list(resize), "shape": "keep"},
    } | changes  # fmt: skip
    write_summary(folder, summary)
    return folder


def test_a_part_takes_the_labels_and_the_others_keep_theirs(camvid, tmp_path):
    folder = made(tmp_path / "labels", camvid)
    both = open_data(f"{DAY}+{DUSK}", camvid)
    ours = relabelled(both, folder, "data.source.labels")
    assert len(ours) == len(both) and ours.names == both.names
    columns = torch.tensor([*range(7), IGNORE], dtype=torch.uint8).repeat_interleave(8)  # 64 wide
    for i in range(len(both)):
        scene, before = ours.read(i, label=True), both.read(i, label=True)
        assert torch.equal(scene.image, before.image) and scene.names == before.names
        assert ours.labelled(i)
        if both.at(i)[0].spec == DAY:
            assert torch.equal(scene.label, before.label)
            assert (ours.class_counts(i) == both.class_counts(i)).all()
        else:
            assert torch.equal(scene.label, columns.expand(48, 64))
            expected = [384] * 7 + [0] * 4 + [384]
            assert ours.class_counts(i).tolist() == expected
            ids, table = ours.label_ids(i)
            assert (table[ids] == columns.numpy()).all()
            assert ours.label_place(i).startswith(str(folder))
        assert ours.read(i).label is None
    ours.check_pairs()
    assert class_statistics(ours, None).sum(1).tolist() == [48 * 64] * len(ours)
    again = pickle.loads(pickle.dumps(ours))  # as reader processes get it
    assert torch.equal(again.read(len(ours) - 1, label=True).label, columns.expand(48, 64))


def test_another_label_is_another_mark(camvid, tmp_path):
    folder = made(tmp_path / "labels", camvid)
    before = list(relabelled(open_data(DUSK, camvid), folder, "key").label_marks())
    path = next(folder.glob("*.png"))
    with Image.open(path) as picture:
        picture.save(path, compress_level=1)
    after = list(relabelled(open_data(DUSK, camvid), folder, "key").label_marks())
    assert len(before) == 3 and before != after


def test_labels_of_other_data_and_of_other_classes_are_refused(camvid, tmp_path):
    folder = made(tmp_path / "labels", camvid)
    with pytest.raises(DataError, match="data.source.labels: .* has labels of camvid:train:dusk, which is no part of"):
        relabelled(open_data(DAY, camvid), folder, "data.source.labels")
    made(tmp_path / "other", camvid, class_names=["road"])
    with pytest.raises(DataError, match="make labels in this space"):
        relabelled(open_data(DUSK, camvid), tmp_path / "other", "key")
    next(folder.glob("*.png")).unlink()
    with pytest.raises(DataError, match=r"no such pseudo-label \(1 of 3 images"):
        relabelled(open_data(DUSK, camvid), folder, "key")
    with pytest.raises(DataError, match="no such folder of pseudo-labels"):
        relabelled(open_data(DUSK, camvid), tmp_path / "none", "key")


def test_a_training_learns_from_the_labels_of_the_part(camvid, tmp_path):
    """Of dusk alone with labels of one class, the network says that class everywhere."""
    data = open_data(DUSK, camvid)
    folder = tmp_path / "labels"
    folder.mkdir()
    for name in data.names:
        write_label(folder, name, np.full((48, 64), 4, np.uint8), data.space)
    summary = {"data": DUSK, "class_names": data.space.classes, "input": {"resize": None, "shape": "keep"}}
    write_summary(folder, summary)
    recipe = small_recipe(camvid, "source_only").override(
        f"data.source.set={DUSK}",
        "data.target.set=camvid:train:day",
        f"data.source.labels={folder}",
        "steps=8",
        "optim.lr=0.01",
    )
    train(recipe, tmp_path / "run")
    assert load_recipe_of(tmp_path / "run").data.source.labels == folder
    losses = [line["source"] for line in read_log(tmp_path / "run") if "source" in line]
    assert losses[-1] < 0.95 * losses[0]
