"""Drawn scenes as files: names, pixels, and reading them back as Cityscapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from segda.commands.draw import draw
from segda.data.sets.datasets import open_data
from segda.data.streets import streets
from segda.data.streets.conditions import SPLITS
from segda.errors import RecipeError, RunError, SegdaError
from segda.ground.atomic import PARTIAL

SIZE = (64, 128)


@pytest.mark.parametrize(
    ("condition", "row", "image"),
    [
        ("day", "cityscapes:val", "leftImg8bit/val/drawnburg/drawnburg_000000_000001_leftImg8bit.png"),
        (
            "fog-0.02",
            "cityscapes-foggy:val:0.02",
            "leftImg8bit_foggy/val/drawnburg/drawnburg_000000_000001_leftImg8bit_foggy_beta_0.02.png",
        ),
        (
            "rain",
            "cityscapes-rain:val",
            "leftImg8bit_rain/val/drawnburg/drawnburg_000000_000001_leftImg8bit_rain_"
            "alpha_0.02_beta_0.01_dropsize_0.005_pattern_2.png",
        ),
    ],
)
def test_drawn_files_are_read_back_by_the_readers_of_cityscapes(tmp_path, condition, row, image):
    out = tmp_path / "cityscapes"
    written = draw(f"streets:val:{condition}", out, 2, SIZE)
    assert len(written) == 12 and all(path.is_file() for path in written)
    assert out / image in written
    data = open_data(row, tmp_path)
    assert len(data) == 2
    scene, drawn = data.read(1, label=True), streets.draw(SPLITS["val"][0], 1, condition, SIZE)
    assert np.array_equal(scene.image.permute(1, 2, 0).numpy(), drawn.image)
    assert torch.equal(scene.label, torch.from_numpy(drawn.label))


def test_label_ids_and_depth_are_those_of_the_benchmark(tmp_path):
    draw("streets:train:night", tmp_path / "out", 1, SIZE)
    folder = tmp_path / "out" / "gtFine" / "train" / "drawnburg"
    ids = np.asarray(Image.open(folder / "drawnburg_000000_000000_gtFine_labelIds.png"))
    trains = np.asarray(Image.open(folder / "drawnburg_000000_000000_gtFine_labelTrainIds.png"))
    # Worked by hand from the benchmark's table: road 7, building 11, sky 23, car 26.
    for train_id, label_id in ((0, 7), (2, 11), (10, 23), (13, 26)):
        assert np.array_equal(trains == train_id, ids == label_id)
    depth = Image.open(tmp_path / "out/depth/train/drawnburg/drawnburg_000000_000000_depth_cm.png")
    metres = np.asarray(depth) / 100
    expected = streets.draw(1, 0, "night", SIZE).depth
    assert np.abs(metres - np.minimum(expected, 655.35)).max() <= 0.0051


@pytest.mark.parametrize(
    ("spec", "count", "size", "error", "message"),
    [
        ("streets:train:fogg", 1, SIZE, RecipeError, "did you mean 'fog'"),
        ("streets:tran:fog", 1, SIZE, RecipeError, "did you mean 'train'"),
        ("camvid:train", 1, SIZE, RecipeError, "only streets is drawn"),
        ("streets:val", 0, SIZE, RecipeError, "--count 0"),
        ("streets:val", 101, SIZE, RecipeError, "1 to 100"),
        ("streets:val", 1, (16, 128), RecipeError, "at least 32"),
    ],
)
def test_what_cannot_be_drawn_is_explained_and_leaves_nothing(tmp_path, spec, count, size, error, message):
    with pytest.raises(error, match=message):
        draw(spec, tmp_path / "out", count, size)
    assert not (tmp_path / "out").exists()


def test_an_interrupted_call_goes_on_when_it_is_repeated_and_no_other_does(tmp_path, monkeypatch):
    def content(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    asked = ("streets:val:fog", tmp_path / "out", 3, SIZE)
    draw("streets:val:fog", tmp_path / "whole", 3, SIZE)
    real, drawn = streets.draw, []

    def killed_at(left):
        def one(*given):
            if len(drawn) == left:
                raise KeyboardInterrupt
            drawn.append(given)
            return real(*given)

        return one

    with monkeypatch.context() as patch:
        patch.setattr(streets, "draw", killed_at(2))
        with pytest.raises(KeyboardInterrupt):
            draw(*asked)
    # Killed while the second scene was written.
    last = sorted((tmp_path / "out" / "camera").rglob("*.json"))[-1]
    last.rename(last.with_name(f".{last.name}.1{PARTIAL}"))
    for other in (("streets:val:rain", *asked[1:]), ("streets:val:fog", tmp_path / "out", 4, SIZE)):
        with pytest.raises(RunError, match="holds an interrupted call for something else .*'count': 3.*; repeat it"):
            draw(*other)
    monkeypatch.setattr(streets, "draw", killed_at(4))
    files = draw(*asked)
    assert len(drawn) == 4, "the first scene is not drawn again"
    assert content(tmp_path / "out") == content(tmp_path / "whole") and all(path.is_file() for path in files)
    with pytest.raises(RunError, match="not an empty folder"):
        draw(*asked)


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(RunError, match="not an empty folder"):
            draw("streets:val", out, 1, SIZE)
    with pytest.raises(SegdaError, match="cannot write"):
        draw("streets:val", tmp_path / "mine.txt" / "below", 1, SIZE)
    assert (tmp_path / "mine.txt").read_text() == "mine"
