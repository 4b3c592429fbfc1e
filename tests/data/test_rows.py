"""What is particular to a row of DATASETS, on small files in its layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from layouts import SIZE, encoded, png, refused, save, sixteen_bits, write_row
from segda.data.labels.spaces import SPACES
from segda.data.rows import DATASETS
from segda.data.sets.datasets import open_data
from segda.errors import DataError
from segda.scene import IGNORE


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.folders])
def test_every_rows_missing_folder_and_empty_split_are_explained(name, tmp_path):
    row = DATASETS[name]
    for split in row.splits:
        with pytest.raises(DataError) as caught:
            open_data(f"{name}:{split}", tmp_path)
        message = str(caught.value)
        assert message.startswith(f"{name}:{split}: no folder {tmp_path / row.folders[0]} (nor {row.folders[1]}")
        assert row.page in message and "docs/DATA.md" in message and "\n" not in message
        (tmp_path / row.folders[0]).mkdir(parents=True)
        with pytest.raises(DataError, match=rf"^{name}:{split}: no images match {tmp_path / row.folders[0]}/.*\*"):
            open_data(f"{name}:{split}", tmp_path)
        shutil.rmtree(tmp_path / row.folders[0])


@pytest.fixture
def synthia(tmp_path):
    write_row(tmp_path / "synthia", "synthia", "GT/LABELS/{key}.png", "synthia")
    return tmp_path / "synthia"


def test_synthias_ids_are_the_red_of_16_bits_not_the_green_or_blue(synthia, tmp_path):
    ids = np.array([[3, 1], [10, 22]], np.uint8)
    save(synthia / "RGB" / "scene_0.png", np.zeros((2, 2, 3), np.uint8))
    (synthia / "GT" / "LABELS" / "scene_0.png").write_bytes(sixteen_bits(ids))
    data = open_data("synthia:train", tmp_path)
    assert data.read(0, label=True).label.tolist() == [[0, 9], [10, IGNORE]]
    assert open_data("synthia:train", tmp_path, SPACES["mapillary-7"]).read(0, label=True).label.tolist() == [
        [0, 4],
        [5, IGNORE],
    ]


def test_synthias_own_labels_come_before_the_8_bit_copies(synthia, tmp_path):
    save(synthia / "parsed_LABELS" / "scene_0.png", np.full(SIZE, 3, np.uint8))
    data = open_data("synthia:train", tmp_path)
    assert data.label_path(0) == synthia / "GT" / "LABELS" / "scene_0.png"
    data.label_path(0).unlink()
    assert data.label_path(0) == synthia / "parsed_LABELS" / "scene_0.png"
    assert (data.read(0, label=True).label == 0).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(np.zeros(SIZE, np.uint8)), "greyscale with 8 bits a channel, where ids are the first of three 16-bit"),
        (encoded(np.zeros((*SIZE, 3), np.uint8)), "RGB with 8 bits a channel"),
        (png(9, 6, 16, 0, bytes(6 * (1 + 9 * 2))), "greyscale with 16 bits a channel"),
        (png(9, 6, 16, rows=6 * (b"\0" + 9 * b"\3\xd0\0\0\0\0")), "976 in its first channel is no id"),
        (png(9, 6, 16, rows=b"\0" * 50), "damaged, it cannot be decoded"),
        (sixteen_bits(np.zeros(SIZE, np.uint8))[:-20], "cut off after"),
        (sixteen_bits(np.full(SIZE, 23)), "has id 23 (54 pixels), which labelling 'synthia' does not name"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_label_of_synthia_is_refused(synthia, tmp_path, content, message):
    path = synthia / "GT" / "LABELS" / "scene_0.png"
    path.write_bytes(content)
    assert message in refused(open_data("synthia:train", tmp_path), path)


@pytest.mark.parametrize("name", ["gta5", "synthia"])
def test_labels_that_daformer_wrote_beside_them_are_neither_read_nor_missed(name, tmp_path):
    template, labelling = DATASETS[name].labels[0]
    write_row(tmp_path / name, name, template, labelling)
    data = open_data(f"{name}:train", tmp_path)
    before = [data.read(i, label=True).label for i in range(2)]
    for i in range(2):
        path = data.label_path(i)
        save(path.with_name(f"{path.stem}_labelTrainIds.png"), np.zeros(SIZE, np.uint8))
    data.check_pairs()
    assert all(torch.equal(data.read(i, label=True).label, label) for i, label in enumerate(before))


def test_gta5_has_plates_that_cityscapes_has_not_and_no_more(tmp_path):
    write_row(tmp_path / "gta5", "gta5", "labels/{key}.png", "gta5")
    data = open_data("gta5:train", tmp_path)
    save(data.label_path(0), np.full(SIZE, 34, np.uint8), palette=True)
    assert (data.read(0, label=True).label == IGNORE).all()
    save(data.label_path(0), np.full(SIZE, 35, np.uint8), palette=True)
    assert "has id 35 (54 pixels), which labelling 'gta5' does not name" in refused(data, data.label_path(0))


def test_a_label_of_gta5_of_another_size_is_named_with_both_sizes(tmp_path):
    write_row(tmp_path / "gta5", "gta5", "labels/{key}.png", "gta5")
    data = open_data("gta5:train", tmp_path)
    save(data.label_path(1), np.zeros((5, 9), np.uint8), palette=True)
    message = refused(data, data.label_path(1), 1)
    assert message.endswith("is 9x5, its image 9x6; use the labels that belong to these images, or leave both out")


def test_mapillarys_folders_have_names_of_their_own(tmp_path):
    write_row(tmp_path / "mapillary", "mapillary", "{split}/labels/{key}.png", "mapillary")
    data = open_data("mapillary:val", tmp_path)
    assert data.image_path(0) == tmp_path / "mapillary" / "validation" / "images" / "scene_0.jpg"
    assert data.label_path(0) == tmp_path / "mapillary" / "validation" / "labels" / "scene_0.png"
    save(data.label_path(0), np.full(SIZE, 66, np.uint8), palette=True)  # an id of v2.0
    assert "has id 66 (54 pixels), which labelling 'mapillary' does not name" in refused(data, data.label_path(0))


ACDC, FLATTENED = (
    "gt/{condition}/{split}/{sequence}/{key}_gt_labelTrainIds.png",
    "gt/{split}/{key}_gt_labelTrainIds.png",
)


def test_acdcs_conditions_are_folders(tmp_path):
    write_row(tmp_path / "acdc", "acdc", ACDC, "cityscapes-train")
    data = open_data("acdc:train:fog", tmp_path)
    assert data.names == ("fog_0_rgb_anon", "fog_1_rgb_anon")
    assert data.image_path(1) == tmp_path / "acdc/rgb_anon/fog/train/GOPR1/fog_1_rgb_anon.png"
    assert data.label_path(1) == tmp_path / "acdc/gt/fog/train/GOPR1/fog_1_gt_labelTrainIds.png"
    assert len(open_data("acdc:train", tmp_path)) == 8


def test_acdcs_reference_images_are_a_row_of_their_own(tmp_path):
    write_row(tmp_path / "acdc", "acdc", ACDC, "cityscapes-train")
    template = "gt/{condition}/{split}_ref/{sequence}/{key}_gt_ref_labelTrainIds.png"
    write_row(tmp_path / "acdc", "acdc-ref", template, "cityscapes-train")
    data = open_data("acdc-ref:val:snow", tmp_path)
    assert data.image_path(0) == tmp_path / "acdc/rgb_anon/snow/val_ref/GOPR0/snow_0_rgb_ref_anon.png"
    assert len(open_data("acdc:val", tmp_path)) == len(open_data("acdc-ref:val", tmp_path)) == 8
    data.check_pairs()


def test_train_ids_of_acdc_come_before_label_ids_and_both_mean_the_same(tmp_path):
    write_row(tmp_path / "acdc", "acdc", ACDC, "cityscapes-train")
    data = open_data("acdc:val:night", tmp_path)
    path = data.label_path(0)
    label = data.read(0, label=True).label
    raw = SPACES["cityscapes-19"].lookup("cityscapes")
    ids = np.array([[int(np.flatnonzero(raw == c)[0]) for c in line] for line in label.tolist()], np.uint8)
    save(path.with_name(path.name.replace("labelTrainIds", "labelIds")), ids)
    assert data.label_path(0) == path
    path.unlink()
    assert data.label_path(0).name.endswith("_gt_labelIds.png")
    assert torch.equal(data.read(0, label=True).label, label)


def test_acdc_flattened_as_daformer_wants_it_has_no_conditions_any_more(tmp_path):
    write_row(tmp_path / "acdc", "acdc", FLATTENED, "cityscapes-train")
    assert len(open_data("acdc:train", tmp_path)) == 2
    with pytest.raises(DataError, match=r"^acdc:train:fog: the images in .*/acdc lie without the folders that tell"):
        open_data("acdc:train:fog", tmp_path)


def test_a_flattened_copy_beside_acdc_as_downloaded_is_left_alone(tmp_path):
    write_row(tmp_path / "acdc", "acdc", ACDC, "cityscapes-train")
    write_row(tmp_path / "acdc", "acdc", FLATTENED, "cityscapes-train")
    for split in ("train", "val"):
        data = open_data(f"acdc:{split}", tmp_path)
        assert len(data) == 8 and not any("scene" in name for name in data.names)
        data.check_pairs()


def test_dark_zurichs_training_images_have_no_labels_and_are_a_target(tmp_path):
    template = "gt/{split}/{condition}/{sequence}/{key}_gt_labelTrainIds.png"
    write_row(tmp_path / "dark_zurich", "dark-zurich", template, "cityscapes-train")
    shutil.rmtree(tmp_path / "dark_zurich" / "gt" / "train")
    data = open_data("dark-zurich:train:night", tmp_path)
    assert data.image_path(0) == tmp_path / "dark_zurich/rgb_anon/train/night/GOPR0/night_0_rgb_anon.png"
    assert len(data) == 2 and data.read(0).label is None
    with pytest.raises(DataError, match=r"^dark-zurich:train:night: 2 of 2 images have no label"):
        data.check_pairs()
    open_data("dark-zurich:val", tmp_path).check_pairs()


def test_dark_zurichs_references_of_val_are_no_images_of_val(tmp_path):
    image = tmp_path / "dark-zurich/rgb_anon/{}/GOPR0356_frame_000321_rgb_anon.png"
    save(tmp_path / str(image).format("val/night/GOPR0356"), np.zeros((*SIZE, 3), np.uint8))
    save(tmp_path / str(image).format("val_ref/day/GOPR0356_ref"), np.zeros((*SIZE, 3), np.uint8))
    assert len(open_data("dark-zurich:val", tmp_path)) == 1
