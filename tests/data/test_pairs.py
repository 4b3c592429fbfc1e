"""Which image is the reference of which: by the data sets' own rules, by name, by a list."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from layouts import LAYOUTS, save, write_row
from segda.data.sets.datasets import open_data
from segda.data.sets.pairs import partners
from segda.errors import DataError, RecipeError

NIGHT, DAY = "dark-zurich:train:night", "dark-zurich:train:day"


def image(root: Path, path: str) -> Path:
    save(root / path, np.zeros((6, 9, 3), np.uint8))
    return root / path


def paired(root: Path, images: str, references: str, pairs: Path | None = None) -> list[tuple[str, str]]:
    data, other = open_data(images, root), open_data(references, root)
    found = partners(data, other, pairs)
    return [(name, other.names[j]) for name, j in zip(data.names, found, strict=True)]


def refused(root: Path, images: str, references: str, pairs: Path | None = None) -> str:
    with pytest.raises(DataError) as caught:
        paired(root, images, references, pairs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def zurich(tmp_path) -> Path:
    """Two nights, two days, and the list that pairs them the other way round."""
    root = tmp_path / "dark_zurich"
    for k in (1, 2):
        image(root, f"rgb_anon/train/night/GOPR0351/GOPR0351_frame_00000{k}_rgb_anon.png")
        image(root, f"rgb_anon/train/day/GOPR0345/GOPR0345_frame_00000{k}_rgb_anon.png")
        image(root, f"rgb_anon/train/twilight/GOPR0348/GOPR0348_frame_00000{k}_rgb_anon.png")
    write_list(root / "corresp/train/night/GOPR0351_ref_day.csv", "day/GOPR0345/GOPR0345")
    write_list(root / "corresp/train/night/GOPR0351_ref_twilight.csv", "twilight/GOPR0348/GOPR0348")
    return tmp_path


def write_list(path: Path, reference: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = ((f"train/night/GOPR0351/GOPR0351_frame_00000{k}", f"train/{reference}_frame_00000{3 - k}") for k in (1, 2))
    path.write_text("".join(f"{one},{other}\n" for one, other in pairs))


# The data sets' own rules


def test_dark_zurichs_training_images_are_paired_by_its_lists(zurich):
    assert paired(zurich, NIGHT, DAY) == [
        ("GOPR0351_frame_000001_rgb_anon", "GOPR0345_frame_000002_rgb_anon"),
        ("GOPR0351_frame_000002_rgb_anon", "GOPR0345_frame_000001_rgb_anon"),
    ]
    twilight = [other for _, other in paired(zurich, NIGHT, "dark-zurich:train:twilight")]
    assert twilight == ["GOPR0348_frame_000002_rgb_anon", "GOPR0348_frame_000001_rgb_anon"]


def test_a_damaged_list_of_dark_zurich_is_named(zurich):
    table = zurich / "dark_zurich/corresp/train/night/GOPR0351_ref_day.csv"
    table.write_text(table.read_text() + "only one\n")
    assert f"{table}: line 3 is no pair of images; download the archive again" in refused(zurich, NIGHT, DAY)
    table.write_bytes(b"\xff\xfe\n")
    assert f"{table}: is no list of pairs" in refused(zurich, NIGHT, DAY)


def test_images_without_a_reference_are_all_told_at_once(zurich):
    for path in (zurich / "dark_zurich/rgb_anon/train/day/GOPR0345").glob("*2_rgb_anon.png"):
        path.unlink()
    message = refused(zurich, NIGHT, DAY)
    assert message == (
        f"data.reference: 1 of 2 images of {NIGHT} have no reference in {DAY} (looked in its lists, corresp/): "
        "GOPR0351_frame_000001_rgb_anon; get the missing images, say with data.reference.pairs which belongs to which, "
        "or choose another data.reference.set"
    )


@pytest.mark.parametrize(("split", "behind"), [("val", "_ref"), ("test", "_ref_GOPR0360_frame_000777")])
def test_dark_zurichs_other_images_are_paired_by_name(tmp_path, split, behind):
    root = tmp_path / "dark_zurich"
    image(root, f"rgb_anon/{split}/night/GOPR0356/GOPR0356_frame_000321_rgb_anon.png")
    image(root, f"rgb_anon/{split}_ref/day/GOPR0356_ref/GOPR0356_frame_000322{behind}_rgb_anon.png")
    images, references = f"dark-zurich:{split}", f"dark-zurich-ref:{split}"
    assert "1 of 1 images" in refused(tmp_path, images, references)
    image(root, f"rgb_anon/{split}_ref/day/GOPR0356_ref/GOPR0356_frame_000321{behind}_rgb_anon.png")
    assert paired(tmp_path, images, references) == [
        ("GOPR0356_frame_000321_rgb_anon", f"GOPR0356_frame_000321{behind}_rgb_anon")
    ]


@pytest.mark.parametrize("folder", ["rgb_anon/{condition}/train/GOPR{k}", "rgb_anon/train"])
def test_acdcs_images_have_the_frame_of_their_reference_in_each_layout(tmp_path, folder):
    write_row(tmp_path / "acdc", *next(one for one in LAYOUTS if one[0] == "acdc-ref"))
    frames = [(condition, k) for condition in ("fog", "night", "rain", "snow") for k in range(2)]
    for condition, k in frames:
        image(tmp_path / "acdc", f"{folder.format(condition=condition, k=k)}/{condition}_{k}_rgb_anon.png")
    found = paired(tmp_path, "acdc:train", "acdc-ref:train")
    assert found == [(f"{condition}_{k}_rgb_anon", f"{condition}_{k}_rgb_ref_anon") for condition, k in frames]
    assert "8 of 8 images" in refused(tmp_path, "acdc:train", "acdc-ref:val")
    if "{condition}" in folder:
        assert paired(tmp_path, "acdc:train:rain", "acdc-ref:train") == found[4:6]
        message = refused(tmp_path, "acdc:train:rain", "acdc-ref:train:fog")
        assert "2 of 2 images" in message and "looked for the same condition, sequence and frame" in message


def test_a_street_by_day_is_the_reference_of_the_same_street_at_night():
    found = paired(Path(), "streets:val:night", "streets:val:day")
    assert len(found) == 100 and found[7] == ("val_night_07", "val_day_07")
    assert "100 of 100 images" in refused(Path(), "streets:val:night", "streets:test:day")


# By name


def test_without_a_rule_images_of_one_name_belong_together(camvid):
    found = paired(camvid, "camvid:train", "camvid:train")
    assert all(one == other for one, other in found)
    message = refused(camvid, "camvid:train:dusk", "camvid:train:day")
    assert "3 of 3 images" in message and "(looked for the same name): 0001TP_001, 0001TP_002, 0001TP_003;" in message


def test_parts_of_a_union_are_paired_each_by_its_rule(zurich):
    write_row(zurich / "acdc", *next(one for one in LAYOUTS if one[0] == "acdc"))
    write_row(zurich / "acdc", *next(one for one in LAYOUTS if one[0] == "acdc-ref"))
    found = paired(zurich, f"acdc:train:night+{NIGHT}", f"{DAY}+acdc-ref:train:night")
    assert [other for _, other in found] == [
        "acdc-ref-train-night_night_0_rgb_ref_anon",
        "acdc-ref-train-night_night_1_rgb_ref_anon",
        "dark-zurich-train-day_GOPR0345_frame_000002_rgb_anon",
        "dark-zurich-train-day_GOPR0345_frame_000001_rgb_anon",
    ]


def test_weights_of_a_reference_are_refused(zurich):
    with pytest.raises(RecipeError, match="weights have no effect, since a reference comes with its image"):
        paired(zurich, NIGHT, f"{DAY}*2+dark-zurich:train:twilight")


# By a list


def listed(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


NAMES = {
    "key": "{0}",
    "stem": "{0}_rgb_anon",
    "file": "{0}_rgb_anon.png",
    "folder and key": "train/{1}/{0}",
    "path": "rgb_anon/train/{1}/{0}_rgb_anon.png",
    "whole path": "{2}/dark_zurich/rgb_anon/train/{1}/{0}_rgb_anon.png",
}


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(NAMES.values(), repeat=2)))
def test_a_list_may_call_images_by_name_or_path_with_or_without_their_ending(zurich, ours, theirs):
    lines = [
        f"{ours.format(f'GOPR0351_frame_00000{k}', 'night/GOPR0351', zurich)},"
        f"{theirs.format(f'GOPR0345_frame_00000{k}', 'day/GOPR0345', zurich)}"
        for k in (2, 1)
    ]
    found = paired(zurich, NIGHT, DAY, listed(zurich, "image,reference", "", *lines, "train/night/GOPR9/other,any"))
    assert [other for _, other in found] == ["GOPR0345_frame_000001_rgb_anon", "GOPR0345_frame_000002_rgb_anon"]


def test_a_list_that_lacks_images_names_them_at_once(zurich):
    pairs = listed(zurich, "GOPR0351_frame_000001,train/day/GOPR0345/GOPR0345_frame_000009")
    message = refused(zurich, NIGHT, DAY, pairs)
    assert message.startswith(
        f"data.reference: 2 of 2 images of {NIGHT} have no reference in {DAY} (by {pairs}): GOPR0351_frame_000001_rgb_"
        "anon (no train/day/GOPR0345/GOPR0345_frame_000009 there), GOPR0351_frame_000002_rgb_anon; get the missing"
    )


def test_a_folder_of_a_list_must_be_the_images_own(zurich):
    pairs = listed(zurich, *(f"val/night/GOPR0351/GOPR0351_frame_00000{k},GOPR0345_frame_000001" for k in (1, 2)))
    assert "2 of 2 images" in refused(zurich, NIGHT, DAY, pairs)


def test_two_references_of_one_image_are_refused(zurich):
    lines = [f"GOPR0351_frame_00000{k},GOPR0345_frame_00000{j}" for k in (1, 2) for j in (1, 2)]
    message = refused(zurich, NIGHT, DAY, listed(zurich, *lines))
    assert (
        "2 of 2 images" in message
        and "first GOPR0351_frame_000001_rgb_anon: GOPR0345_frame_000001_rgb_anon and " in message
    )
    twice = [f"GOPR0351_frame_00000{k},GOPR0345_frame_000001" for k in (1, 2, 1)]
    assert len(paired(zurich, NIGHT, DAY, listed(zurich, *twice))) == 2, "the same pair twice is one"


def test_a_name_that_several_images_have_is_refused(zurich):
    for folder in (1, 2):
        image(zurich, f"idd/leftImg8bit/train/{folder}/shot_leftImg8bit.png")
    message = refused(zurich, "idd:train", "idd:train", listed(zurich, "shot,shot"))
    assert "shot can be 1_shot_leftImg8bit or 2_shot_leftImg8bit of idd:train; write more of its path" in message
    found = paired(zurich, "idd:train", "idd:train", listed(zurich, "1/shot,2/shot", "2/shot,1/shot"))
    assert [other for _, other in found] == ["2_shot_leftImg8bit", "1_shot_leftImg8bit"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"one\n", "line 1 is no pair; write image,reference, the name of an image each"),
        (b"a,b\nc,d,e\n", "line 2 is no pair"),
        (b"a,\n", "line 1 is no pair"),
        (b"\xff\xfe", "is no list of pairs"),
        (None, "no such list of pairs; write a line image,reference for each image"),
    ],
)
def test_what_is_no_list_is_refused_by_its_name(zurich, content, reason):
    path = zurich / "mine.csv"
    if content is not None:
        path.write_bytes(content)
    assert f"{path}: {reason}" in refused(zurich, NIGHT, DAY, path)
