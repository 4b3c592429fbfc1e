"""Image and label files: every kind of bad input, on the small CamVid. `frame` is the first of its day images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from layouts import NOISE, encoded, png, refused, save
from segda.data.files.images import MEGAPIXELS
from segda.data.sets.datasets import open_data


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.1])
def test_a_png_that_is_cut_off_is_refused(data, frame, kept):
    content = encoded(NOISE)
    frame.write_bytes(content[: int(kept * len(content))])
    assert "cut off after" in refused(data, frame)


@pytest.mark.parametrize("kept", [0.999, 0.5, 0.2])
def test_a_jpeg_that_is_cut_off_is_refused(camvid, frame, kept):
    frame.unlink()
    frame = frame.with_suffix(".jpg")
    content = encoded(NOISE, "JPEG")
    frame.write_bytes(content)
    data = open_data("camvid:train:day", camvid)
    assert data.read(0).image.shape == (3, 48, 64)
    frame.write_bytes(content[: int(kept * len(content))])
    assert "cut off after" in refused(data, frame)


def test_a_jpeg_whose_end_is_only_in_its_preview_is_cut_off(camvid, frame):
    frame.unlink()
    preview = b"\xff\xd8 a small picture \xff\xd9"
    content = encoded(NOISE, "JPEG")
    content = content[:2] + b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview + content[2:]
    frame = frame.with_suffix(".jpg")
    frame.write_bytes(content)
    data = open_data("camvid:train:day", camvid)
    assert data.read(0).image.shape == (3, 48, 64)
    frame.write_bytes(content[:-200])
    assert "cut off after" in refused(data, frame)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\n", "neither a PNG nor a JPEG"),
        (b"\x89PNG\r\n\x1a\n", "neither a PNG nor a JPEG, or damaged at its start"),
        (b"\xff\xd8\xff", "neither a PNG nor a JPEG, or damaged at its start"),
        (png(64, 48, 16, rows=bytes(48 * (1 + 64 * 6))), "RGB with 16 bits a channel, where 8-bit RGB is needed"),
        (png(64, 48, 16, 0, bytes(48 * (1 + 64 * 2))), "greyscale with 16 bits"),
        (encoded(np.dstack([NOISE, 254 + NOISE[..., 0] // 255])), "RGBA with 8 bits"),
        (encoded(NOISE[..., 0]), "greyscale with 8 bits"),
        (encoded(NOISE[..., 0], "JPEG"), "greyscale JPEG with 8 bits"),
        (encoded(NOISE, mode="P"), "palette with 8 bits"),
        (encoded(NOISE, "JPEG", mode="CMYK"), "CMYK with 8 bits"),
        (png(64, 48, rows=b"\0" * 500), "damaged, it cannot be decoded"),
        (png(0, 48), "has no pixels (0x48)"),
        (png(20_000, 10_050), f"20000x10050 is more than {MEGAPIXELS} megapixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_8_bit_rgb_image_is_refused_and_never_converted(data, frame, content, message):
    frame.write_bytes(content)
    assert message in refused(data, frame)


def test_an_alpha_channel_that_is_opaque_everywhere_says_nothing(data, frame):
    frame.write_bytes(encoded(NOISE, mode="RGBA"))
    assert frame.read_bytes()[25] == 6, "RGBA"
    assert (data.read(0).image.permute(1, 2, 0).numpy() == NOISE).all()


def test_damaged_pixels_of_a_png_are_refused(data, frame, label):
    for path in (frame, label):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 0x55
        path.write_bytes(damaged)
        assert "damaged, it cannot be decoded" in refused(data, path)
        path.write_bytes(whole)
    assert data.read(0, label=True)


def test_an_image_that_went_away_is_named(data, frame):
    frame.unlink()
    assert "no such file" in refused(data, frame)


def test_pixels_are_not_turned_by_the_cameras_orientation(camvid, frame):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(NOISE).save(frame.with_suffix(".jpg"), exif=turned)
    frame.unlink()
    scene = open_data("camvid:train:day", camvid).read(0, label=True)
    assert scene.image.shape == (3, 48, 64)


def test_a_labels_palette_indices_are_its_ids(data, label):
    before = data.read(0, label=True).label
    with Image.open(label) as picture:
        ids = np.array(picture)
    save(label, ids, palette=True)
    with Image.open(label) as picture:
        assert picture.mode == "P"
    assert torch.equal(data.read(0, label=True).label, before)


def test_a_palette_of_few_bits_is_read_too(data, label):
    ids = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64) % 4
    picture = Image.fromarray(ids)
    picture.putpalette([0, 0, 0, 9, 9, 9, 8, 7, 6, 255, 255, 255])
    picture.save(label, bits=2)
    assert label.read_bytes()[24:26] == b"\x02\x03", "2 bits, palette"
    assert torch.equal(data.read(0, label=True).label, torch.from_numpy(ids))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(NOISE), "RGB with 8 bits a channel, where a label is a PNG of ids"),
        (encoded(NOISE, mode="RGBA"), "RGBA with 8 bits"),
        (png(64, 48, 16, 0, bytes(48 * (1 + 64 * 2))), "greyscale with 16 bits"),
        (png(64, 48, 1, 0, bytes(48 * 9)), "greyscale with 1 bits"),
        (encoded(NOISE[..., 0], "JPEG"), "greyscale JPEG"),
        (b"", "the file is empty"),
        (encoded(NOISE[..., 0])[:400], "cut off after 400 bytes"),
        (png(64, 48, 8, 0, b"\0" * 500), "damaged, it cannot be decoded"),
        (png(20_000, 10_050, 8, 0), "megapixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_of_ids_is_no_label(data, label, content, message):
    label.write_bytes(content)
    assert message in refused(data, label)
