"""Lists of images: official splits, the images of a night."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from layouts import LAYOUTS, matlab, save, write_row
from segda.commands.check_data import check_data
from segda.data.files.matlab import numbers
from segda.data.rows import DATASETS
from segda.data.sets.datasets import open_data
from segda.data.sets.specs import conditions_of
from segda.errors import DataError, RecipeError

WRITTEN_BY_SCIPY = bytes(124) + base64.b64decode(
    "AAFJTQ8AAAAyAAAAeJzjY2BgcABiNiDmAGJuBghghfKZgZgRikH8kqLEzDzPlGIWqB5GoIq2RAYGAGWIBLUPAAAALgAAAHic42NgYLAAYjYg"
    "5gBiFgYIYIXyGaFyjECZvPySVAEoP1GhJLWihIEBAER/BIQPAAAAMQAAAHic42NgYPAAYjYg5oDSIMAK5TMBMSMUg+TKEnM8U4oZGDiBbAEG"
    "OHCAUDIOAG7xA5oPAAAAKwAAAHic42NgYLAAYjYg5gBiTgYIYIXyGZEwOxCXpBaXeKYUMzABRUBqAD4BA10PAAAANwAAAHic42NgYFgBxGxA"
    "zAHEjAwQwIrEZwLTLAzJqTk5fEC2BZJ6PizqGZHM4UEzl1z9TFA+ALm+A4o="
)
"""What scipy 1.17.1's savemat(..., do_compression=True) made of the variables below; its header's text left out."""


def written(root, name: str):
    _, template, labelling = next(layout for layout in LAYOUTS if layout[0] == name)
    return write_row(root / DATASETS[name].folders[0], name, template, labelling)


def test_numbers_are_those_that_scipy_wrote():
    assert numbers(WRITTEN_BY_SCIPY, "trainIds") == [1, 3, 24966]  # 16 bits
    assert numbers(WRITTEN_BY_SCIPY, "valIds") == [2, 7]  # doubles, as MATLAB saves by default
    assert numbers(WRITTEN_BY_SCIPY, "testIds") == [5]  # one byte, in a small element


@pytest.mark.parametrize("compressed", [False, True])
def test_a_column_of_numbers_is_read_back(compressed):
    column = list(range(1, 24_967, 3))
    content = matlab({"other": [7], "trainIds": column}, compressed)
    assert numbers(content, "trainIds") == column and numbers(content, "other") == [7]


@pytest.mark.parametrize("variable", ["note", "cell"])
def test_what_is_no_array_of_numbers_is_refused(variable):
    with pytest.raises(ValueError, match=f"{variable} holds no numbers"):
        numbers(WRITTEN_BY_SCIPY, variable)


def test_a_variable_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(KeyError, match="no variable Ids, only trainIds, note, valIds, testIds, cell"):
        numbers(WRITTEN_BY_SCIPY, "Ids")


@pytest.mark.parametrize(
    "content", [b"", b"MATLAB 7.3 MAT-file", WRITTEN_BY_SCIPY[:140], bytes(200), WRITTEN_BY_SCIPY[:128] + b"\xff" * 64]
)
def test_what_is_no_matlab_file_is_refused(content):
    with pytest.raises(ValueError, match="not a MATLAB 5 file|cut off"):
        numbers(content, "trainIds")


def test_a_variable_that_unpacks_to_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("segda.data.files.matlab.BYTES", 1000)
    with pytest.raises(ValueError, match="a variable of more than 1000 bytes"):
        numbers(matlab({"trainIds": list(range(60_000))}), "trainIds")


def test_fractions_are_no_numbers_of_images():
    content = bytearray(matlab({"trainIds": [1, 2]}, compressed=False))
    at = content.rfind(b"\x04\x00\x00\x00\x04\x00\x00\x00")  # the tag of two 16-bit numbers; now one 32-bit float
    content[at], content[at + 8 : at + 12] = 7, np.float32(1.5).tobytes()
    with pytest.raises(ValueError, match="not whole"):
        numbers(bytes(content), "trainIds")


def test_gta5s_official_splits_are_those_of_the_authors_file(tmp_path):
    written(tmp_path, "gta5")
    assert open_data("gta5:official-train", tmp_path).names == ("00001",)
    assert open_data("gta5:official-val", tmp_path).names == ("00002",)
    assert open_data("gta5:official-test", tmp_path).names == open_data("gta5:train", tmp_path).names
    open_data("gta5:official-val", tmp_path).check_pairs()
    (tmp_path / "gta5/split.mat").write_bytes(matlab({"trainIds": [3]}))
    with pytest.raises(DataError, match=r"^gta5:official-train: .*split.mat names no image in .*gta5; get"):
        open_data("gta5:official-train", tmp_path)
    with pytest.raises(
        DataError, match=r"split.mat: is no such list \(KeyError: 'no variable valIds, only trainIds'\)"
    ):
        open_data("gta5:official-val", tmp_path)
    (tmp_path / "gta5/split.mat").write_bytes(b"no such file")
    with pytest.raises(DataError, match=r"split.mat: is no such list \(ValueError: not a MATLAB 5 file\); get it from"):
        open_data("gta5:official-val", tmp_path)
    (tmp_path / "gta5/split.mat").unlink()
    with pytest.raises(DataError, match=r"split.mat: no such list of images; get it from https.* and see docs/DATA.md"):
        open_data("gta5:official-val", tmp_path)
    assert len(open_data("gta5:train", tmp_path)) == 2


def test_bdds_night_is_a_list(tmp_path):
    written(tmp_path, "bdd100k")
    assert open_data("bdd100k:val:night", tmp_path).names == ("scene_0",) and conditions_of("bdd100k") == ("night",)
    (tmp_path / "bdd100k/images_trainval_night_correct_filenames.txt").unlink()
    with pytest.raises(DataError, match="no such list of images"):
        open_data("bdd100k:val:night", tmp_path)


def test_conditions_joined_by_a_comma_must_all_hold(tmp_path):
    for name in ("cityscapes-foggy", "cityscapes-rain", "muses", "shift"):
        written(tmp_path, name)
    for spec, count in (
        ("cityscapes-foggy:train:refined", 3),
        ("cityscapes-foggy:train:refined,0.01", 1),
        ("cityscapes-foggy:train:0.01", 2),
        ("cityscapes-rain:train:pattern-1", 6),
        ("cityscapes-rain:train:pattern-1,0.02", 2),
        ("muses:train:night", 4),
        ("muses:train:fog", 2),
        ("muses:train:night,fog", 1),
        ("shift:train:clear", 1),
        ("shift:train:clear,daytime", 1),
    ):
        assert len(open_data(spec, tmp_path)) == count, spec
    for spec in ("shift:train:clear,night", "cityscapes-rain:train:pattern-2", "muses:train:night,day"):
        with pytest.raises(DataError, match=r"names no image|is of the condition"):
            open_data(spec, tmp_path)
    with pytest.raises(RecipeError, match="muses has no condition 'nigth'; did you mean 'night'"):
        open_data("muses:train:fog,nigth", tmp_path)


def test_shifts_table_without_its_columns_is_refused(tmp_path):
    written(tmp_path, "shift")
    (tmp_path / "shift/discrete/images/train/front/seq.csv").write_text("video,weather\nGOPR0,clear\n")
    with pytest.raises(DataError, match=r"seq.csv: is no such list \(KeyError: 'start_weather_coarse'\)"):
        open_data("shift:train:clear", tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe", b'"' + bytes(1) + b"x" * 140_000])
def test_a_damaged_list_is_named(tmp_path, content):
    written(tmp_path, "shift")
    table = tmp_path / "shift/discrete/images/train/front/seq.csv"
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"seq.csv: is no such list \((Error|UnicodeDecodeError): "):
        open_data("shift:train:clear", tmp_path)


@pytest.mark.parametrize("cut", range(128, 200, 3))
def test_a_cut_file_of_splits_is_named(tmp_path, cut):
    written(tmp_path, "gta5")
    (tmp_path / "gta5/split.mat").write_bytes(matlab({"trainIds": [1, 2]}, compressed=False)[:cut])
    with pytest.raises(DataError, match=r"split.mat: is no such list"):
        open_data("gta5:official-train", tmp_path)


def test_one_stem_in_several_folders_has_its_folder_in_its_name(tmp_path):
    written(tmp_path, "idd")
    root = tmp_path / "idd/leftImg8bit/train"
    save(root / "7/scene_0_leftImg8bit.png", np.zeros((6, 9, 3), np.uint8))
    assert open_data("idd:train", tmp_path).names == (
        "0_scene_0_leftImg8bit", "1_scene_1_leftImg8bit", "7_scene_0_leftImg8bit",
    )  # fmt: skip


def image(root, path: str) -> None:
    save(root / path, np.zeros((6, 9, 3), np.uint8))


# How many there are.


def test_what_is_there_is_set_against_the_public_data_set(tmp_path):
    written(tmp_path, "gta5")
    assert check_data("gta5:train", tmp_path).notes == ["gta5:train: 24966 images in the public data set, here are 2"]
    assert check_data("gta5:official-val", tmp_path).notes == [
        "gta5:official-val: 6382 images in the public data set, here are 1"
    ]
    for k in range(50):
        image(tmp_path / "dark-zurich", f"rgb_anon/val/night/GOPR0356/{k}_rgb_anon.png")
    first, second = check_data("dark-zurich:val", tmp_path).notes
    assert first == "dark-zurich:val: 50 images in the public data set, as many as here"
    assert second.startswith("dark-zurich:val: labels of 0 of 50 images; for more, get Dark_Zurich_val_anon.zip from")
    assert check_data("dark-zurich:val:night", tmp_path).notes == [second.replace("val:", "val:night:", 1)]


@pytest.mark.parametrize("name", [name for name, row in DATASETS.items() if row.counts])
def test_counts_are_of_splits_and_conditions_that_can_be_asked_for(name):
    row = DATASETS[name]
    for key, count in row.counts.items():
        split, _, condition = key.partition(":")
        assert split in row.splits and count > 0 and (not condition or condition in conditions_of(name))
    if name == "gta5":
        assert sum(count for key, count in row.counts.items() if key.startswith("official")) == row.counts["train"]
