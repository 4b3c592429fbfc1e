"""Train ids and class statistics as files: what is in them, where they go, and what is left alone."""

from __future__ import annotations

import json
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from PIL import Image

from layouts import save, sixteen_bits, write_row
from segda.cli.main import main
from segda.commands.prepare import prepare
from segda.data.labels.spaces import SPACES
from segda.data.rows import DATASETS
from segda.data.sets.datasets import open_data
from segda.errors import DataError, RecipeError, RunError

# More processes than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

LISTS = {"sample_class_stats.json", "sample_class_stats_dict.json", "samples_with_class.json"}


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "L"
        return np.asarray(picture)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def gta(tmp_path) -> Path:
    """Two images of GTA5: a root."""
    for name, ids in (("00001", [[7, 7, 11], [26, 0, 34]]), ("00002", [[23, 23, 23], [23, 23, 7]])):
        save(tmp_path / "gta5" / "images" / f"{name}.png", np.zeros((2, 3, 3), np.uint8))
        save(tmp_path / "gta5" / "labels" / f"{name}.png", np.array(ids, np.uint8), palette=True)
    return tmp_path


def test_labels_and_statistics_are_written_into_a_folder_of_their_own(gta, tmp_path):
    before = files(gta / "gta5")
    out = tmp_path / "out"
    done = prepare("gta5", gta, out)
    # Worked by hand: 7 road 0, 11 building 2, 26 car 13, 23 sky 10, 0 and 34 are ignored.
    one, two = (out / "labels" / f"0000{k}_labelTrainIds.png" for k in (1, 2))
    assert pixels(one).tolist() == [[0, 0, 2], [13, 255, 255]] and pixels(two).tolist() == [[10] * 3, [10, 10, 0]]
    counts = {str(one): {"0": 2, "2": 1, "13": 1}, str(two): {"0": 1, "10": 5}}
    listed = {title: json.loads((out / title).read_text()) for title in LISTS}
    assert listed["sample_class_stats_dict.json"] == counts
    assert listed["sample_class_stats.json"] == [{**classes, "file": file} for file, classes in counts.items()]
    with_class = {
        "0": [[str(one), 2], [str(two), 1]],
        "2": [[str(one), 1]],
        "13": [[str(one), 1]],
        "10": [[str(two), 5]],
    }
    assert listed["samples_with_class.json"] == with_class
    assert (out / "sample_class_stats.json").read_text().startswith('[\n  {\n    "0": 2,\n    "2": 1,')
    assert files(gta / "gta5") == before, "the data are as they were"
    assert (done.labels, done.there) == (2, 0) and {path.name for path in done.lists} == LISTS


def test_beside_the_labels_they_do_not_disturb_our_own_reader(gta):
    before = files(gta / "gta5")
    done = prepare("gta5:train", gta, in_place=True)
    assert done.out == gta / "gta5"
    after = files(gta / "gta5")
    assert {path: after[path] for path in before} == before
    added = {"labels/00001_labelTrainIds.png", "labels/00002_labelTrainIds.png", *LISTS}
    assert {path for path in after if path not in before and not path.startswith(".segda/")} == added
    data = open_data("gta5:train", gta)
    data.check_pairs()
    assert len(data) == 2 and data.read(0, label=True).label[0].tolist() == [0, 0, 2]


def test_a_repeated_call_goes_on_and_replaces_nothing(gta, tmp_path):
    out = tmp_path / "out"
    first = prepare("gta5", gta, out)
    whole = files(out)
    (out / "labels" / "00002_labelTrainIds.png").unlink()
    (out / "samples_with_class.json").unlink()
    again = prepare("gta5", gta, out)
    assert files(out) == whole
    assert (first.labels, again.labels, again.there) == (2, 1, 1)
    mine = Image.fromarray(np.full((2, 3), 9, np.uint8))
    mine.save(out / "labels" / "00001_labelTrainIds.png")
    assert prepare("gta5", gta, out).labels == 0
    assert (pixels(out / "labels" / "00001_labelTrainIds.png") == 9).all()


def test_a_list_of_other_content_is_not_replaced(gta, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "sample_class_stats_dict.json").write_text("{}")
    with pytest.raises(RunError, match=r"sample_class_stats_dict.json is there with another content; .* --out"):
        prepare("gta5", gta, out)
    assert (out / "sample_class_stats_dict.json").read_text() == "{}" and not (out / "labels").exists()


def test_an_unknown_id_stops_it_and_what_is_written_stays(gta, tmp_path):
    out = tmp_path / "out"
    save(gta / "gta5" / "labels" / "00002.png", np.full((2, 3), 77, np.uint8))
    with pytest.raises(DataError, match=r"00002.png has id 77 \(6 pixels\), which labelling 'gta5' does not name"):
        prepare("gta5", gta, out)
    assert not files(out)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_processes_writes_the_same(tmp_path, workers):
    write_row(tmp_path / "acdc", "acdc", *DATASETS["acdc"].labels[1])
    plain = prepare("acdc:val", tmp_path, tmp_path / "plain", workers=0)
    ours = prepare("acdc:val", tmp_path, tmp_path / "ours", workers=workers)
    assert ours.labels == plain.labels == 8
    theirs = {path: content.replace(b"plain", b"ours") for path, content in files(tmp_path / "plain").items()}
    assert files(tmp_path / "ours") == theirs


def test_synthia_is_written_in_the_19_ids_that_its_users_read(tmp_path):
    save(tmp_path / "synthia" / "RGB" / "0000000.png", np.zeros((1, 4, 3), np.uint8))
    (tmp_path / "synthia" / "GT" / "LABELS").mkdir(parents=True)
    (tmp_path / "synthia" / "GT" / "LABELS" / "0000000.png").write_bytes(sixteen_bits(np.array([[8, 11, 17, 22]])))
    prepare("synthia", tmp_path, tmp_path / "out")
    # Car 13, bicycle 18, rider 12: in synthia-16, which has no terrain, truck and train, they would be 12, 15 and 11.
    path = tmp_path / "out" / "GT" / "LABELS" / "0000000_labelTrainIds.png"
    assert pixels(path).tolist() == [[13, 18, 12, 255]]
    prepare("synthia", tmp_path, tmp_path / "own", space="synthia-16")
    path = tmp_path / "own" / "GT" / "LABELS" / "0000000_synthia-16.png"
    assert pixels(path).tolist() == [[12, 15, 11, 255]]


def test_cityscapes_has_its_lists_of_scenes_and_the_statistics_of_train_alone(tmp_path):
    written = write_row(tmp_path / "cityscapes", "cityscapes", *DATASETS["cityscapes"].labels[0])
    out = tmp_path / "out"
    done = prepare("cityscapes", tmp_path, out)
    assert done.labels == 6
    for split in ("train", "val", "test"):
        assert (out / f"{split}.txt").read_text() == "town/scene_0\ntown/scene_1\n"
    stats = json.loads((out / "sample_class_stats.json").read_text())
    names = [out / "gtFine" / "train" / "town" / f"scene_{k}_gtFine_labelTrainIds.png" for k in (0, 1)]
    assert [entry["file"] for entry in stats] == [str(name) for name in names]
    lookup = SPACES["cityscapes-19"].lookup("cityscapes")
    for name, (_, ids) in zip(names, written["train", None].values(), strict=True):
        assert np.array_equal(pixels(name), lookup[ids])


def test_a_space_of_other_classes_has_its_name_in_the_files(camvid, tmp_path):
    out = tmp_path / "out"
    done = prepare("camvid:val", camvid, out, statistics_only=True)
    assert done.labels == 0 and {path.name for path in out.iterdir() if path.is_file()} == LISTS
    assert list(json.loads((out / "sample_class_stats_dict.json").read_text())) == [
        str(out / "valannot" / f"0016E5_10{k}_camvid-11.png") for k in (1, 2)
    ]
    prepare("camvid:val", camvid, out)
    theirs = pixels(camvid / "camvid" / "valannot" / "0016E5_101.png")
    assert np.array_equal(pixels(out / "valannot" / "0016E5_101_camvid-11.png"), np.where(theirs == 11, 255, theirs))


def test_splits_without_labels_are_left_out_and_said(tmp_path):
    write_row(tmp_path / "acdc", "acdc", *DATASETS["acdc"].labels[0])
    for path in (tmp_path / "acdc" / "gt").glob("*/test/*/*.png"):
        path.unlink()
    done = prepare("acdc", tmp_path, tmp_path / "out")
    assert done.labels == 16
    assert len(done.left_out) == 1 and "acdc:test: none of the 8 images has a label" in done.left_out[0]


@pytest.mark.parametrize(
    ("spec", "settings", "error", "message"),
    [
        ("gta6", {}, RecipeError, "did you mean 'gta5'?"),
        ("gta5:trian", {}, RecipeError, "no split 'trian'"),
        ("gta5:train+camvid:train", {}, RecipeError, "one data set at a time"),
        ("streets", {}, RecipeError, "is drawn and has no files"),
        ("cityscapes-foggy", {}, RecipeError, "prepare cityscapes"),
        ("gta5", {"space": "cityscapes19"}, RecipeError, "unknown label space"),
        ("gta5", {"in_place": True, "out": Path("x")}, RecipeError, "give one of them"),
        ("gta5", {"workers": -2}, RecipeError, "--workers -2"),
        ("synthia", {}, DataError, "no folder"),
        ("camvid:val", {"in_place": True}, RecipeError, "0016E5_101_camvid-11.png beside the labels would be read as"),
    ],
)
def test_what_cannot_be_prepared_is_explained_and_nothing_is_written(gta, camvid, spec, settings, error, message):
    root = camvid if spec.startswith("camvid:") else gta
    before = files(root)
    with pytest.raises(error, match=message):
        prepare(spec, root, **{"out": root / "out", **settings} if "in_place" not in settings else settings)
    assert files(root) == before


def test_a_label_of_a_split_that_is_missing_stops_it(gta, tmp_path):
    (gta / "gta5" / "labels" / "00002.png").unlink()
    with pytest.raises(DataError, match="1 of 2 images have no label"):
        prepare("gta5", gta, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_what_it_wrote(gta, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["prepare", "gta5", "--root", str(gta)]) == 0
    said = capsys.readouterr().out
    assert "prepared/gta5: 2 labels in the ids of cityscapes-19 written, 0 were there" in said
    assert "sample_class_stats.json" in said
    assert main(["prepare", "gta5", "--root", str(gta), "--cache", "--statistics-only"]) == 0
    assert sorted(path.name for path in (gta / "gta5").iterdir()) == sorted([".segda", "images", "labels", *LISTS])


def test_labels_are_read_from_an_archive_and_written_beside_it(gta, tmp_path):
    plain = prepare("gta5:train", gta, tmp_path / "out")
    with ZipFile(gta / "gta5" / "01_labels.zip", "w") as archive:
        for path in (gta / "gta5" / "labels").iterdir():
            archive.write(path, f"labels/{path.name}")
            path.unlink()
    (gta / "gta5" / "labels").rmdir()
    assert prepare("gta5:train", gta, in_place=True).labels == plain.labels == 2
    ours, theirs = files(gta / "gta5" / "labels"), files(tmp_path / "out" / "labels")
    assert ours == theirs
    assert open_data("gta5:train", gta).read(0, label=True).label[1].tolist() == [13, 255, 255]


def test_a_folder_of_ones_own_is_prepared_in_its_own_classes(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "masks" / "a.png", np.array([[0, 1, 2]], np.uint8))
    (tmp_path / "mine.yaml").write_text(
        "splits: {train: {images: images, labels: masks}}\nignored: [0]\nclasses: {field: {id: 2}, track: {id: 1}}\n"
    )
    done = prepare(f"folder:{tmp_path / 'mine.yaml'}:train", tmp_path, tmp_path / "out")
    assert done.labels == 1 and pixels(tmp_path / "out" / "masks" / "a_mine.png").tolist() == [[255, 1, 0]]
    counts = json.loads((tmp_path / "out" / "sample_class_stats_dict.json").read_text())
    assert counts == {str(tmp_path / "out" / "masks" / "a_mine.png"): {"0": 1, "1": 1}}


def test_labels_outside_of_their_root_have_no_place_in_another_folder(tmp_path):
    save(tmp_path / "images" / "a.png", np.zeros((1, 3, 3), np.uint8))
    save(tmp_path / "masks" / "a.png", np.zeros((1, 3), np.uint8))
    (tmp_path / "deep").mkdir()
    for begin in ("../", f"{tmp_path}/"):
        (tmp_path / "deep" / "mine.yaml").write_text(
            f"splits: {{train: {{images: {begin}images, labels: {begin}masks}}}}\nclasses: {{field: {{id: 0}}}}\n"
        )
        before = files(tmp_path)
        with pytest.raises(RecipeError, match="a_mine.png is not below the folder"):
            prepare(f"folder:{tmp_path / 'deep' / 'mine.yaml'}:train", tmp_path, tmp_path / "out")
        assert files(tmp_path) == before
