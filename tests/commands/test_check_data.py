"""`check_data` on the small CamVid, whole and spoilt in every way it should find."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from conftest import FRAMES
from layouts import LAYOUTS, SIZE, write_row
from segda.commands.check_data import check_data
from segda.data.labels.labellings import LABELLINGS
from segda.data.rows import DATASETS
from segda.data.sets import streets as street_sets
from segda.data.streets.conditions import SPLITS
from segda.errors import DataError, RecipeError
from segda.reporting import contact_sheet
from segda.reporting.contact_sheet import GAP, LINE, TILE
from segda.reporting.tables import LISTED, data_table


def shown(report) -> str:
    console = Console(file=io.StringIO(), width=300)
    console.print(data_table(report))
    return console.file.getvalue()


@pytest.fixture
def images(camvid):
    return camvid / "camvid" / "train"


@pytest.fixture
def labels(camvid):
    return camvid / "camvid" / "trainannot"


def test_a_whole_data_set_is_counted_and_usable(camvid, labels):
    report = check_data("camvid:train", camvid)
    assert report.usable and report.verdict == "usable" and report.faults == {}
    assert (report.images, report.labels) == (7, 7) and report.sizes == Counter({(64, 48): 7})
    ids = Counter()
    for path in labels.iterdir():
        with Image.open(path) as label:
            ids.update(np.array(label).ravel().tolist())
    assert report.class_counts.tolist() == [ids[c] for c in range(12)]
    assert report.seen.max() <= 7 and ((report.seen > 0) == (report.class_counts > 0)).all()
    text = shown(report)
    assert "7 images, 7 labels" in text and "7 of 64x48" in text and str(camvid / "camvid") in text
    share = 100 * ids[3] / (7 * 48 * 64)
    assert f"{share:.2f} %" in next(line for line in text.splitlines() if line.startswith("road"))
    assert text.rstrip().endswith("usable")


@pytest.mark.parametrize(("name", "template", "labelling"), LAYOUTS)
def test_every_row_is_checked_in_its_own_layout(name, template, labelling, tmp_path, monkeypatch):
    monkeypatch.setattr(contact_sheet, "TILE", 32)  # of the sheet, what counts here is that there is one
    row = DATASETS[name]
    written = write_row(tmp_path / row.folders[-1], name, template, labelling)
    for split in row.splits:
        report = check_data(f"{name}:{split}", tmp_path, out=tmp_path / "sheets")
        count = len({stem for (of, _), scenes in written.items() if of == split for stem in scenes})
        assert report.usable and (report.images, report.labels) == (count, count)
        assert report.sizes == Counter({SIZE[::-1]: count}) and report.class_counts.sum() == count * SIZE[0] * SIZE[1]
        assert report.sheet.is_file() and "usable" in shown(report)


def test_a_condition_is_checked_alone(camvid):
    assert check_data("camvid:train:dusk", camvid).images == sum(name.startswith("0001TP") for name in FRAMES["train"])


def test_unknown_ids_are_listed_with_their_pixels_and_the_rest_is_counted(camvid, labels):
    path = labels / "0006R0_f01.png"
    ids = np.zeros((48, 64), np.uint8)
    ids[0, :5], ids[1, :2] = 12, 200
    Image.fromarray(ids).save(path)
    report = check_data("camvid:train:day", camvid)
    assert report.faults == {"unknown ids": [f"{path}: 12 (5 pixels), 200 (2 pixels)"]}
    assert report.class_counts.sum() == 4 * 48 * 64 - 7
    assert not report.usable and report.verdict == "unusable: 1 faults"


def test_missing_partners_are_listed_in_both_directions(camvid, images, labels):
    (labels / "0006R0_f01.png").unlink()
    (images / "0006R0_f02.png").unlink()
    report = check_data("camvid:train:day", camvid)
    assert report.faults == {
        "images without label": [f"{images / '0006R0_f01.png'} (looked for {labels / '0006R0_f01.png'})"],
        "labels without image": [str(labels / "0006R0_f02.png")],
    }
    assert (report.images, report.labels) == (3, 2) and not report.usable


def test_all_unreadable_files_are_listed_and_the_rest_is_read(camvid, images, labels, tmp_path):
    (images / "0006R0_f01.png").write_bytes(b"")
    cut = images / "0006R0_f02.png"
    cut.write_bytes(cut.read_bytes()[:-9])
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(labels / "0016E5_001.png")
    report = check_data("camvid:train:day", camvid, out=tmp_path / "sheet")
    assert list(report.faults) == ["unreadable files"]
    broken = (images / "0006R0_f01.png", cut, labels / "0016E5_001.png")
    for path, line in zip(broken, report.faults["unreadable files"], strict=True):
        assert line.startswith(f"{path}: ")
    assert report.sizes == Counter({(64, 48): 2}) and report.class_counts.sum() == 3 * 48 * 64
    text = shown(report)
    assert "3 unreadable files:" in text and text.rstrip().endswith("unusable: 3 faults")
    assert report.sheet.is_file(), "what can be read is shown"


def test_an_image_and_a_label_that_are_both_unreadable_are_two_faults(camvid, images, labels):
    for folder in (images, labels):
        (folder / "0006R0_f01.png").write_bytes(b"")
    assert len(check_data("camvid:train:day", camvid).faults["unreadable files"]) == 2


def test_a_label_of_another_size_is_a_fault(camvid, labels):
    Image.fromarray(np.zeros((24, 64), np.uint8)).save(labels / "0006R0_f01.png")
    report = check_data("camvid:train:day", camvid)
    assert report.faults == {"sizes that differ": [f"{labels / '0006R0_f01.png'} is 64x24, its image 64x48"]}


@pytest.fixture
def mapillary(tmp_path):
    write_row(tmp_path / "data" / "mapillary", "mapillary", "{split}/v1.2/labels/{key}.png", "mapillary")
    return tmp_path / "data" / "mapillary"


def names_file(path: Path, **changed: str) -> None:
    """A list of names as Mapillary's, some of them changed."""
    names = {f"id{id}": name for id, name in LABELLINGS["mapillary"].items()} | changed
    path.write_text(json.dumps({"labels": [{"name": "a--b", "readable": name} for name in names.values()]}))


@pytest.mark.parametrize("name", ["config.json", "config_v1.2.json"])
def test_names_that_a_data_set_gives_its_ids_are_compared_with_ours(mapillary, name):
    names_file(mapillary / name, id13="ROAD")  # without case, as the authors of ESL compare them
    assert check_data("mapillary:train", mapillary.parent).faults == {}
    names_file(mapillary / name, id2="Fence", id66="Trailer")
    assert check_data("mapillary:val", mapillary.parent).faults == {
        "ids of another meaning": [
            f"{mapillary / name}: id 2 is fence, here curb",
            f"{mapillary / name}: id 66 is trailer, here nothing",
        ]
    }


@pytest.mark.parametrize("content", ["", "[]", '{"labels": [{"name": "a"}]}', '{"labels": [{"readable": 3}]}', "\xff"])
def test_a_list_of_names_that_is_none_is_a_fault(mapillary, content):
    (mapillary / "config.json").write_text(content, encoding="latin-1")
    (line,) = check_data("mapillary:train", mapillary.parent).faults["ids of another meaning"]
    assert line.startswith(f"{mapillary / 'config.json'} is no list of names (")


def test_a_set_without_labels_is_usable_as_a_target(camvid, labels, tmp_path):
    shutil.rmtree(labels)
    report = check_data("camvid:train:dusk", camvid, out=tmp_path / "sheet")
    assert report.usable and report.labels == 0 and report.class_counts.sum() == 0
    assert report.verdict == "usable as a target in training; no labels, so not as a source or for evaluation"
    assert report.sheet.is_file() and "class" not in shown(report)


def test_long_lists_are_shortened_on_the_terminal_alone(camvid, images, labels):
    for k in range(LISTED + 5):
        shutil.copy(labels / "0006R0_f01.png", labels / f"spare_{k:02d}.png")
    report = check_data("camvid:train", camvid)
    assert len(report.faults["labels without image"]) == LISTED + 5
    text = shown(report)
    assert "spare_19" in text and "spare_20" not in text and "and 5 more" in text


def test_nothing_to_read_is_an_error(camvid, tmp_path):
    with pytest.raises(DataError, match="no folder"):
        check_data("camvid:train", tmp_path)
    with pytest.raises(RecipeError, match="did you mean 'train'"):
        check_data("camvid:trian", camvid)


def test_the_sheet_shows_images_beside_their_labels(tmp_path):
    folder = tmp_path / "data" / "camvid"
    label = np.full((48, 64), 3, np.uint8)  # road, (128, 64, 128)
    label[:, 32:] = 11  # ignored
    for split, pixels in (("val", np.full((48, 64, 3), 100, np.uint8)), ("valannot", label)):
        (folder / split).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / split / "0016E5_1.png")
    report = check_data("camvid:val:day", tmp_path / "data", out=tmp_path / "sheets")
    assert report.sheet == tmp_path / "sheets" / "camvid-val-day.png"
    assert [path.name for path in report.sheet.parent.iterdir()] == ["camvid-val-day.png"]
    with Image.open(report.sheet) as sheet:
        left, middle = GAP, GAP + LINE + 50
        assert sheet.getpixel((left + 100, middle)) == (100, 100, 100)
        # 0.55 of the colour on 0.45 of the grey image; what is ignored is hatched in black and white.
        assert sheet.getpixel((left + TILE + 40, middle)) == (115, 80, 115)
        ignored = {sheet.getpixel((left + TILE + 280 + k, middle)) for k in range(16)}
        assert ignored == {(45, 45, 45), (185, 185, 185)}
        assert sheet.width == 2 * TILE + 2 * GAP
    assert check_data("camvid:val:day", tmp_path / "data", out=tmp_path / "sheets").sheet  # its own is replaced
    mine = tmp_path / "mine" / "camvid-val-day.png"
    mine.parent.mkdir()
    Image.new("RGB", (3, 3)).save(mine)
    before = mine.read_bytes()
    report = check_data("camvid:val:day", tmp_path / "data", out=mine.parent)
    assert report.sheet is None and "segda check-data did not write it; choose another --out" in report.no_sheet
    assert mine.read_bytes() == before


def test_a_very_tall_image_does_not_make_a_very_tall_sheet(tmp_path):
    path = tmp_path / "camvid" / "train" / "0006R0_1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((9000, 2, 3), np.uint8)).save(path)
    report = check_data("camvid:train", tmp_path, out=tmp_path / "sheet")
    with Image.open(report.sheet) as sheet:
        assert sheet.height < 3 * TILE


def test_drawn_scenes_are_checked_too(monkeypatch, tmp_path):
    monkeypatch.setitem(SPLITS, "val", (SPLITS["val"][0], 3))
    monkeypatch.setattr(street_sets, "SIZE", (32, 64))
    report = check_data("streets:val:night", out=tmp_path)
    assert report.usable and (report.images, report.labels, report.where) == (3, 3, "drawn")
    assert report.class_counts.sum() == 3 * 32 * 64 and report.sheet.is_file()
