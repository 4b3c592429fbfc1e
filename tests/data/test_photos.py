"""Photographs as people have them: kinds of files, greyscale, the camera's orientation."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps

from layouts import refused, save
from segda.data.files.photos import facts_of, read_photo
from segda.data.sets.datasets import open_data
from segda.errors import DataError, ImageError

NOISE = np.random.default_rng(5).integers(0, 256, (6, 9, 3), np.uint8)
TAG = 0x0112


def read(path, turned=True):
    return read_photo(path, turned).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", ["png", "PNG", "tif", "TIFF", "bmp", "webp"])
def test_every_kind_that_keeps_values_is_read_as_it_was_written(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(NOISE).save(path, **({"lossless": True} if kind == "webp" else {}))
    assert (read(path) == NOISE).all()
    assert facts_of(path).size == (6, 9) and facts_of(path).grey == ""


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_as_pillow_turns_it_and_as_stored_on_demand(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[TAG] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(NOISE).save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    Image.fromarray(NOISE).save(tmp_path / f"plain.{kind}", **({"lossless": True} if kind == "webp" else {}))
    with Image.open(path) as picture:
        theirs = np.array(ImageOps.exif_transpose(picture))
    with Image.open(tmp_path / f"plain.{kind}") as picture:
        stored = np.array(picture)
    assert np.abs(read(path).astype(int) - theirs).max() <= (3 if kind == "jpg" else 0)  # two decoders of JPEG
    assert np.abs(read(path, turned=False).astype(int) - stored).max() <= (3 if kind == "jpg" else 0)
    facts = facts_of(path)
    assert facts.orientation == orientation and facts.shown(True) == theirs.shape[:2] and facts.shown(False) == (6, 9)


@pytest.mark.parametrize("kind", ["png", "tif", "bmp", "jpg"])
def test_a_greyscale_photograph_has_three_equal_channels(tmp_path, kind):
    Image.fromarray(NOISE[..., 0]).save(tmp_path / f"a.{kind}")
    ours = read(tmp_path / f"a.{kind}")
    assert (ours == ours[..., :1]).all() and facts_of(tmp_path / f"a.{kind}").grey == "greyscale"
    assert kind == "jpg" or (ours[..., 0] == NOISE[..., 0]).all()


@pytest.mark.parametrize("kind", ["png", "tif"])
def test_a_thermal_image_is_stretched_between_its_percentiles(tmp_path, kind):
    """A camera of 14 bits that sees 20 to 30 degrees uses a few hundred of its 16384 values."""
    values = np.arange(7000, 7201, dtype=np.uint16).repeat(10).reshape(30, 67)
    Image.fromarray(values).save(tmp_path / f"a.{kind}")
    ours = read(tmp_path / f"a.{kind}")[..., 0]
    assert facts_of(tmp_path / f"a.{kind}").grey == "16-bit greyscale"
    # The 1st percentile is 7002, the 99th 7198: 196 values become 255.
    theirs = np.clip((values.astype(float) - 7002) / 196 * 255, 0, 255)
    assert np.abs(ours - theirs).max() <= 1 and ours.min() == 0 and ours.max() == 255


def test_a_thermal_image_of_one_value_and_of_fractions_is_read(tmp_path):
    Image.fromarray(np.full((4, 5), 7000, np.uint16)).save(tmp_path / "flat.png")
    assert (read(tmp_path / "flat.png") == 0).all()
    Image.fromarray(np.linspace(20, 30, 20, dtype=np.float32).reshape(4, 5)).save(tmp_path / "degrees.tif")
    ours = read(tmp_path / "degrees.tif")[..., 0]
    assert ours[0, 0] == 0 and ours[-1, -1] == 255 and (np.diff(ours.ravel().astype(int)) >= 0).all()
    Image.fromarray(np.full((4, 5), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(DataError, match="no numbers"):
        read(tmp_path / "nan.tif")


def pictures(path, kind):
    """A file that is no photograph."""
    grey = Image.fromarray(NOISE[..., 0])
    if kind == "palette":
        Image.fromarray(NOISE).convert("P").save(path)
    elif kind == "one bit":
        grey.convert("1").save(path)
    elif kind == "transparent":
        Image.fromarray(np.dstack([NOISE, NOISE[..., 0]])).save(path)
    elif kind == "several":
        grey.save(path, format="TIFF", save_all=True, append_images=[grey])
    elif kind == "cut":
        grey.save(path, format="TIFF")
        path.write_bytes(path.read_bytes()[:40])
    elif kind == "text":
        path.write_text("no picture at all, but a long text")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("palette", "is a palette picture, as labels are"),
        ("one bit", "is black and white, as labels are"),
        ("transparent", "parts of it are transparent"),
        ("several", "holds 2 pictures"),
        ("cut", "damaged"),
        ("text", "neither PNG, JPEG, WebP, TIFF or BMP, or damaged at its start"),
    ],
)
def test_what_is_no_photograph_is_refused_with_the_reason(tmp_path, kind, message):
    path = tmp_path / "a.png"
    pictures(path, kind)
    for call in (read_photo, facts_of):
        if kind == "transparent" and call is facts_of:
            continue  # the header does not say so
        try:
            call(path)
        except DataError as error:
            assert message in str(error) and str(path) in str(error) and "\n" not in str(error)
        else:
            assert kind == "cut" and call is facts_of


def test_a_file_that_is_missing_or_empty_is_an_error_of_that_image(tmp_path):
    (tmp_path / "empty.tif").write_bytes(b"")
    for name in ("empty.tif", "gone.tif"):
        with pytest.raises(ImageError, match=name):
            read_photo(tmp_path / name)


@pytest.mark.parametrize("orientation", ["apply", "ignore"])
def test_a_label_that_lies_otherwise_than_its_image_is_said_to_by_the_tag(tmp_path, orientation):
    """Of a photograph that was taken upright, 6 wide and 9 high as it is shown."""
    exif = Image.Exif()
    exif[TAG] = 6
    (tmp_path / "i").mkdir()
    Image.fromarray(NOISE).save(tmp_path / "i/a.jpg", exif=exif)
    (tmp_path / "x.yaml").write_text(
        "splits: {train: {images: i, labels: l}}\nclasses: {a: {id: 0}, b: {id: 1}}\n"
        f"orientation: {orientation}\n"
    )
    shown, stored = np.zeros((9, 6), np.uint8), np.zeros((6, 9), np.uint8)
    fits, other = (shown, stored) if orientation == "apply" else (stored, shown)
    save(tmp_path / "l/a.png", fits)
    data = open_data(f"folder:{tmp_path}/x.yaml:train")
    assert data.read(0, label=True).label.shape == fits.shape == data.size(0)
    save(tmp_path / "l/a.png", other)
    message = refused(data, tmp_path / "l/a.png")
    way = "ignore" if orientation == "apply" else "apply"
    assert "EXIF orientation tag" in message and f"orientation: {way}" in message
