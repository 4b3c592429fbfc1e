"""What is particular to a row of DATASETS, on small files in its layout."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from layouts import SIZE, encoded, png, refused, save, sixteen_bits, write_row
from segda.data.datasets import DATASETS, open_data
from segda.data.labels import SPACES
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
    assert message.endswith("is 9x5 but its image is 9x6; use the labels that belong to these images, or remove both")


def test_mapillarys_folders_have_names_of_their_own(tmp_path):
    write_row(tmp_path / "mapillary", "mapillary", "{split}/labels/{key}.png", "mapillary")
    data = open_data("mapillary:val", tmp_path)
    assert data.image_path(0) == tmp_path / "mapillary" / "validation" / "images" / "scene_0.jpg"
    assert data.label_path(0) == tmp_path / "mapillary" / "validation" / "labels" / "scene_0.png"
    save(data.label_path(0), np.full(SIZE, 66, np.uint8), palette=True)  # an id of v2.0
    assert "has id 66 (54 pixels), which labelling 'mapillary' does not name" in refused(data, data.label_path(0))
