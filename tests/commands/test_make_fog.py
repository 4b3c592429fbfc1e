"""Foggy and rainy images of clear ones: the whole way in float64, the names that the readers know, and bad input."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data.test_fog import air_of, guided
from segda.cli.main import main
from segda.commands.check_data import check_data
from segda.commands.draw import draw
from segda.commands.make_fog import make_fog
from segda.commands.make_rain import make_rain
from segda.data.sets.datasets import open_data
from segda.data.streets import streets
from segda.data.streets.conditions import SPLITS
from segda.data.weather import rain
from segda.data.weather.make import clear_images
from segda.data.weather.stereo import depth_of, read_camera, read_disparity
from segda.errors import DataError, RecipeError

# More processes than cores are slow, not wrong.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")

SIZE = (32, 64)
KEY = "drawnburg/drawnburg_000000_00000"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "cityscapes"
    draw("streets:train", folder, 2, SIZE)
    return folder


@pytest.fixture
def clear(drawn, tmp_path) -> Path:
    """Two drawn streets by day, with disparity, camera and labels; to be broken at will."""
    folder = tmp_path / "cityscapes"
    for path in drawn.rglob("*.*"):
        (folder / path.relative_to(drawn)).parent.mkdir(parents=True, exist_ok=True)
        (folder / path.relative_to(drawn)).write_bytes(path.read_bytes())
    return folder


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.mode == "RGB"
        return np.asarray(picture)


def measured(folder: Path, k: int) -> tuple[np.ndarray, np.ndarray, dict, np.ndarray]:
    """Clear image in [0, 1], depth, intrinsics and ray lengths of a drawn street, in float64 from its files."""
    image = read(folder / f"leftImg8bit/train/{KEY}{k}_leftImg8bit.png") / 255
    stored = np.float64(cv2.imread(str(folder / f"disparity/train/{KEY}{k}_disparity.png"), cv2.IMREAD_UNCHANGED))
    camera = json.loads((folder / f"camera/train/{KEY}{k}_camera.json").read_text())
    with np.errstate(divide="ignore"):
        depth = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / ((stored - 1) / 256)
    own = camera["intrinsic"]
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ray = np.sqrt(own["fx"] ** 2 + (x - own["u0"]) ** 2 + (y - own["v0"]) ** 2) / own["fx"]
    return image, depth, own, ray


@pytest.mark.parametrize("beta", [0.005, 0.02])
def test_fog_is_that_of_the_paper_in_float64(drawn, tmp_path, beta):
    make_fog(drawn, [beta], tmp_path)
    for k in (0, 1):
        image, depth, _, ray = measured(drawn, k)
        through = np.clip(guided(image, np.exp(-beta * depth * ray), 20, 1e-3), 0, 1)[..., None]
        theirs = 255 * (image * through + air_of(image, 15, 1 / 1000) * (1 - through))
        ours = read(tmp_path / f"leftImg8bit_foggy/train/{KEY}{k}_leftImg8bit_foggy_beta_{beta}.png")
        assert np.abs(ours - theirs).max() < 0.51
        assert np.abs(ours - 255 * image).max() > 20, "no fog"


def test_rain_is_that_of_the_paper_in_float64(drawn, tmp_path):
    make_rain(drawn, ["0.02"], [4], tmp_path)
    image, depth, camera, _ = measured(drawn, 1)
    haze = 1 - np.clip(guided(image, np.exp(-0.01 * depth), 20, 1e-3), 0, 1)[..., None]
    bright = np.exp(-0.02 * np.maximum(depth, 2 * camera["fx"] * 0.005))
    streaks = (rain.pattern(SIZE, 4) * np.clip(guided(image, bright, 20, 1e-3), 0, 1))[..., None]
    theirs = 255 * np.clip(image * (1 - streaks - haze) + streaks + air_of(image, 15, 1 / 1000) * haze, 0, 1)
    ending = "leftImg8bit_rain_alpha_0.02_beta_0.01_dropsize_0.005_pattern_4.png"
    assert np.abs(read(tmp_path / f"leftImg8bit_rain/train/{KEY}1_{ending}") - theirs).max() < 0.51


@pytest.mark.parametrize("k", [0, 1])
def test_drawn_disparities_give_the_drawn_depth(drawn, k):
    scene = streets.draw(SPLITS["train"][0], k, "day", SIZE)
    place = clear_images(drawn)[k]
    camera = read_camera(place.camera)
    assert camera == scene.camera
    disparity, known = read_disparity(place.disparity, SIZE)
    depth, sky = depth_of(disparity, camera), scene.label == 10
    assert known.all() and np.isinf(depth[sky]).all()
    # A 256th of a pixel is the smallest difference that a file can hold, and it is rounded.
    bound = 0.5001 / 256 / (camera.baseline * camera.fx)
    assert np.abs(1 / depth - 1 / scene.depth)[~sky].max() <= bound


@pytest.mark.parametrize("beta", ["0.005", "0.01", "0.02"])
def test_fog_made_is_read_and_checked_as_foggy_cityscapes(clear, tmp_path, beta):
    make_fog(clear, [0.005, 0.01, 0.02], clear)
    spec = f"cityscapes-foggy:train:{beta}"
    data = open_data(spec, tmp_path)
    assert len(data) == 2 and len(open_data("cityscapes-foggy:train", tmp_path)) == 6
    scene = data.read(1, label=True)
    assert np.array_equal(scene.image.permute(1, 2, 0), read(data.image_path(1)))
    labels = streets.draw(SPLITS["train"][0], 1, "day", SIZE).label
    assert np.array_equal(scene.label.numpy(), labels)
    found = check_data(spec, tmp_path, out=tmp_path / "sheet")
    assert found.labels == 2 and not found.faults and found.sheet.is_file()


def test_rain_made_is_read_as_rain_cityscapes(clear, tmp_path):
    done = make_rain(clear, ["0.01", "0.03"], [1, 12], clear)
    assert (done.images, done.written, done.there) == (2, 8, 0)
    assert len(open_data("cityscapes-rain:train:0.03", tmp_path)) == 4
    assert (
        open_data("cityscapes-rain:train:0.01", tmp_path)
        .images[0]
        .endswith("000_leftImg8bit_rain_alpha_0.01_beta_0.005_dropsize_0.01_pattern_1.png")
    )


def test_without_labels_beside_it_fog_is_a_target(drawn, tmp_path):
    make_fog(drawn, [0.01], tmp_path / "cityscapes-foggy")
    found = check_data("cityscapes-foggy:train:0.01", tmp_path)
    assert found.usable and found.labels == 0 and "target" in found.verdict


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_any_number_of_processes_makes_the_same(drawn, tmp_path, workers):
    for number, out in ((0, "plain"), (workers, "ours")):
        make_fog(drawn, [0.01], tmp_path / out, number)
    for path in (tmp_path / "plain").rglob("*.png"):
        assert (tmp_path / "ours" / path.relative_to(tmp_path / "plain")).read_bytes() == path.read_bytes()


def test_a_repeated_call_goes_on_and_replaces_nothing(clear, tmp_path):
    assert make_fog(clear, [0.01], tmp_path / "out").written == 2
    first, second = sorted((tmp_path / "out").rglob("*.png"))
    content = second.read_bytes()
    second.unlink()
    first.write_bytes(b"mine")
    again = make_fog(clear, [0.01, 0.02, 0.01], tmp_path / "out")
    assert (again.images, again.written, again.there) == (2, 3, 1)
    assert first.read_bytes() == b"mine" and second.read_bytes() == content


def test_holes_are_filled_before_there_is_fog(clear, tmp_path):
    path = clear / f"disparity/train/{KEY}0_disparity.png"
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    make_fog(clear, [0.02], tmp_path / "all")
    stored[:, :6] = stored[-5:] = 0
    stored[np.random.default_rng(0).random(SIZE) < 0.2] = 0
    cv2.imwrite(str(path), stored)
    make_fog(clear, [0.02], tmp_path / "holes")
    name = f"leftImg8bit_foggy/train/{KEY}0_leftImg8bit_foggy_beta_0.02.png"
    whole, patched = (np.float64(read(tmp_path / out / name)) for out in ("all", "holes"))
    away = np.abs(whole - patched)
    assert 0 < away.mean() < 2 and away.max() < 40


def eight_bits(path: Path) -> None:
    Image.fromarray(np.full(SIZE, 40, np.uint8)).save(path)


def other_size(path: Path) -> None:
    Image.fromarray(np.full((16, 64), 4000, np.uint16)).save(path)


def colours(path: Path) -> None:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)


def nothing_known(path: Path) -> None:
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)


def without_baseline(path: Path) -> None:
    path.write_text('{"intrinsic": {"fx": 60, "u0": 30, "v0": 15}, "extrinsic": {}}')


BROKEN = [
    ("disparity", eight_bits, "greyscale with 8 bits, where a disparity is greyscale with 16"),
    ("disparity", colours, "RGB with 8 bits"),
    ("disparity", other_size, "is 64x16 but its image is 64x32"),
    ("disparity", nothing_known, "no pixel has a disparity"),
    ("disparity", lambda path: path.write_bytes(path.read_bytes()[:-40]), "no PNG, damaged"),
    ("disparity", lambda path: path.write_text("no"), "no PNG, damaged"),
    ("camera", without_baseline, "extrinsic.baseline is None, where a positive number is needed"),
    ("camera", lambda path: path.write_text('{"intrinsic": {"fx": -3}}'), "intrinsic.fx is -3, where a positive"),
    ("camera", lambda path: path.write_text('{"intrinsic": {"fx": true}}'), "intrinsic.fx is True, where a positive"),
    ("camera", lambda path: path.write_text('{"intrinsic": {"fx": NaN}}'), "intrinsic.fx is nan, where a positive"),
    ("camera", lambda path: path.write_text("[]"), "intrinsic.fx is None"),
    ("camera", lambda path: path.write_text("no"), "no JSON that can be read"),
    ("leftImg8bit", lambda path: path.write_bytes(b""), "the file is empty"),
]


@pytest.mark.parametrize(("folder", "harm", "message"), BROKEN)
@pytest.mark.parametrize("make", [make_fog, make_rain])
def test_files_that_are_no_good_are_named_and_nothing_is_half_written(clear, tmp_path, folder, harm, message, make):
    (path,) = (clear / folder).glob(f"train/{KEY}1*")
    harm(path)
    settings = ([0.01],) if make is make_fog else (["0.01"], [1])
    with pytest.raises(DataError) as caught:
        make(clear, *settings, tmp_path / "out")
    text = str(caught.value)
    assert text.startswith(str(path)) and message in text and "; " in text and "\n" not in text
    assert [one.name[:26] for one in (tmp_path / "out").rglob("*.*")] == ["drawnburg_000000_000000_lef"[:26]]


@pytest.mark.parametrize("name", ["disparity", "camera"])
def test_missing_files_are_said_before_anything_is_made(clear, tmp_path, name):
    (path,) = (clear / name).glob(f"train/{KEY}1*")
    path.unlink()
    with pytest.raises(DataError, match=f"1 of 2 images have no {name}, first {path}; get {name}_trainvaltest.zip"):
        make_fog(clear, [0.01], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("beta", [0, -0.01, float("nan"), float("inf")])
def test_a_beta_that_cannot_be_is_refused(drawn, tmp_path, beta):
    with pytest.raises(RecipeError, match="--beta .*: give the attenuation per metre"):
        make_fog(drawn, [0.01, beta], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("alpha", "pattern", "message"),
    [
        (["0.04"], [1], "--alpha 0.04: Rain Cityscapes has no such strength; did you mean '0.0"),
        (["0.01"], [0], "--pattern 0: there are 1 to 12"),
        (["0.01"], [13], "--pattern 13"),
        ([], [1], "at least one --alpha"),
    ],
)
def test_rain_that_there_is_not_is_refused(drawn, tmp_path, alpha, pattern, message):
    with pytest.raises(RecipeError, match=message):
        make_rain(drawn, alpha, pattern, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_images_is_explained(tmp_path):
    with pytest.raises(DataError, match=r"no images match leftImg8bit/\*/\*/\*_leftImg8bit.png; give the folder"):
        make_fog(tmp_path, [0.01], tmp_path / "out")


def test_the_commands_say_what_they_made(drawn, tmp_path, capsys):
    out = str(tmp_path / "out")
    assert main(["make-fog", str(drawn), "--beta", "0.005", "--beta", "0.02", "--out", out]) == 0
    said = capsys.readouterr().out
    assert f"{out}: 4 images written of 2 clear ones, 0 were there" in said and "0.005 (599 m), 0.02 (150 m)" in said
    assert main(["make-rain", str(drawn), "--alpha", "0.03", "--pattern", "2", "--out", out]) == 0
    assert "2 images written" in capsys.readouterr().out
    assert main(["make-fog", str(drawn), "--beta", "0", "--out", out]) == 2
    assert capsys.readouterr().err.startswith("segda: --beta 0: give the attenuation per metre")
