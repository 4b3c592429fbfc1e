"""Augmentation step by step, on pictures small enough to check by eye."""

from collections import Counter

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from segda.data.sets.class_statistics import class_statistics
from segda.data.sets.datasets import open_data
from segda.data.stream.augment import (
    REDRAWS,
    augment,
    draw_box,
    draw_factor,
    fit_to_pad,
    fitted_size,
    padded_size,
    resize,
    resize_label,
    scaled_size,
)
from segda.data.stream.settings import Augment, RareClass
from segda.data.stream.stream import Stream
from segda.errors import DataError
from segda.scene import IGNORE, Scene


def settings(**given) -> Augment:
    return Augment(**{"resize": None, "crop": None, "max_class_share": None, "flip": 0} | given)


def scene_of(height: int, width: int, seed: int = 0, classes: int = 5) -> Scene:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (3, height, width)).astype(np.uint8))
    return Scene(
        image, torch.from_numpy(rng.integers(0, classes, (height, width)).astype(np.uint8)), names=("picture",)
    )


class Scripted:
    """A generator whose `integers` come from a list."""

    def __init__(self, *numbers: int):
        self.numbers = list(numbers)

    def integers(self, low: int, high: int) -> int:
        assert low <= self.numbers[0] < high
        return self.numbers.pop(0)


class Unflipped(Scripted):
    """The same, never below a probability."""

    def random(self) -> float:
        return 1.0


@pytest.mark.parametrize(
    ("size", "box", "fitted"),
    [
        ((1052, 1914), (1280, 720), (704, 1280)),  # GTA: 1280 / 1914 x 1052 = 703.5
        ((760, 1280), (1280, 760), (760, 1280)),
        ((1024, 2048), (1024, 512), (512, 1024)),
        ((1080, 1920), (960, 540), (540, 960)),
        ((1920, 1080), (960, 540), (960, 540)),  # upright: the longer side goes with the longer side
        ((1080, 1920), (540, 960), (540, 960)),
        ((10, 20), (40, 40), (20, 40)),
        ((1, 5000), (100, 50), (1, 100)),
        ((9000, 3), (100, 50), (100, 1)),
    ],
)
def test_an_image_is_fitted_into_a_box_in_its_own_shape(size, box, fitted):
    assert fitted_size(size, box) == fitted


@given(st.tuples(*[st.integers(1, 4000)] * 2), st.tuples(*[st.integers(1, 2000)] * 2))
def test_a_fitted_image_is_in_its_box_touches_it_and_has_no_side_of_nothing(size, box):
    short, long = sorted(fitted_size(size, box))
    assert 1 <= short <= min(box) and 1 <= long <= max(box)
    assert short == min(box) or long == max(box)


def test_a_very_thin_image_can_be_resized():
    thin = resize(scene_of(1, 500), (50, 20))
    assert thin.image.shape == (3, 1, 50) and thin.label.shape == (1, 50)


@pytest.mark.parametrize(("size", "box"), [((12, 20), (10, 6)), ((7, 9), (27, 21)), ((13, 17), (11, 8))])
def test_images_are_resized_bilinearly_without_antialiasing_and_labels_to_the_nearest(size, box):
    scene = scene_of(*size)
    ours = resize(scene, box)
    height, width = fitted_size(size, box)
    pixels, label = scene.image.numpy().astype(np.float64), scene.label.numpy()
    for v in range(height):
        for u in range(width):
            # Centres of pixels are at halves; beyond the first and the last one the edge goes on.
            y = np.clip((v + 0.5) * size[0] / height - 0.5, 0, size[0] - 1)
            x = np.clip((u + 0.5) * size[1] / width - 0.5, 0, size[1] - 1)
            top, left = int(y), int(x)
            below, right = min(top + 1, size[0] - 1), min(left + 1, size[1] - 1)
            upper = pixels[:, top, left] * (1 - x + left) + pixels[:, top, right] * (x - left)
            lower = pixels[:, below, left] * (1 - x + left) + pixels[:, below, right] * (x - left)
            theirs = upper * (1 - y + top) + lower * (y - top)
            assert np.abs(ours.image[:, v, u].numpy() - theirs).max() <= 1  # OpenCV counts in fixed point
            assert ours.label[v, u] == label[v * size[0] // height, u * size[1] // width]


def test_a_size_that_fits_already_is_left_alone():
    scene = scene_of(8, 16)
    assert resize(scene, (16, 8)) is scene and resize(scene, None) is scene


@pytest.mark.parametrize(
    ("size", "fitted", "padded"),
    [
        ((3024, 4032), (512, 682), (3024, 6048)),  # 4:3, 512 x 4032 / 3024 = 682.67
        ((1000, 3000), (341, 1024), (1500, 3000)),  # 1024 / 3 = 341.33
        ((333, 999), (341, 1024), (499, 999)),  # 999 / 2 = 499.5
        ((700, 1500), (477, 1024), (750, 1500)),  # 1024 x 700 / 1500 = 477.87
        ((784, 1568), (512, 1024), (784, 1568)),  # 1568 (512 / 784) is 1023.99.. in floating point
        ((4032, 3024), (512, 384), (4032, 8064)),  # upright: the box stays as it lies
        ((1, 5000), (1, 1024), (2500, 5000)),
        ((9000, 3), (512, 1), (9000, 18000)),
    ],
)
def test_an_image_is_scaled_and_filled_up_to_the_shape_of_a_box(size, fitted, padded):
    assert fit_to_pad(size, (1024, 512)) == fitted
    assert padded_size(size, (1024, 512)) == padded


@given(st.tuples(*[st.integers(1, 4000)] * 2), st.tuples(*[st.integers(1, 2000)] * 2))
def test_what_is_filled_up_holds_its_image_and_has_the_shape_of_the_box(size, box):
    height, width = fit_to_pad(size, box)
    assert 1 <= height <= box[1] and 1 <= width <= box[0] and (height == box[1] or width == box[0])
    tall, wide = padded_size(size, box)
    assert tall >= size[0] and wide >= size[1] and (tall, wide)[tall != size[0]] == size[tall != size[0]]
    assert abs(tall * box[0] - wide * box[1]) < max(box), "the box's shape, but for rounding down"


def test_the_size_of_a_scaled_image_is_its_own_without_a_box():
    assert scaled_size((7, 9), None, "keep") == (7, 9)
    assert scaled_size((1052, 1914), (1280, 720), "keep") == (704, 1280)
    assert scaled_size((3000, 4000), (1024, 512), "pad") == (512, 682)  # 512 * 4000 / 3000 = 682.67
    assert scaled_size((3000, 4000), (1024, 512), "stretch") == (512, 1024)
    upright = [scaled_size((40, 30), (20, 10), shape) for shape in ("keep", "stretch", "pad")]
    assert upright == [(13, 10), (10, 20), (10, 7)]


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_a_stretched_image_fills_the_box(kernel):
    ours = resize(scene_of(12, 20), (7, 9), "stretch", kernel)
    assert ours.image.shape == (3, 9, 7) and ours.label.shape == (9, 7)
    assert resize(scene_of(12, 20).replace(label=None), (7, 9), "stretch", kernel).label is None


def test_a_padded_image_has_black_and_ignored_pixels_below_or_right():
    scene = scene_of(6, 8)
    scaled = resize(scene, (4, 3), "stretch")
    for box, rest in (((10, 3), (slice(None), slice(4, None))), ((4, 7), (slice(3, None), slice(None)))):
        ours = resize(scene, box, "pad")
        assert ours.image.shape[1:] == (box[1], box[0]) == ours.label.shape
        assert torch.equal(ours.image[:, :3, :4], scaled.image) and torch.equal(ours.label[:3, :4], scaled.label)
        assert not ours.image[(slice(None), *rest)].any() and (ours.label[rest] == IGNORE).all()
    assert torch.equal(resize(scene, (4, 3), "pad").image, scaled.image)
    assert resize(scene.replace(label=None), (10, 3), "pad").label is None


def cubic(x: float) -> float:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    return 1.5 * x**3 - 2.5 * x**2 + 1 if x < 1 else -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def resampled(line: np.ndarray, count: int) -> np.ndarray:
    """A line of pixels as `count` means of its pixels, weighted by the kernel as wide as what is left out."""
    scale = len(line) / count
    width = max(scale, 1)
    values = []
    for i in range(count):
        weights = np.array([cubic((j + 0.5 - (i + 0.5) * scale) / width) for j in range(len(line))])
        values.append((weights @ line) / weights.sum())
    return np.array(values)


@pytest.mark.parametrize(("size", "box"), [((12, 20), (9, 5)), ((7, 9), (27, 21)), ((13, 17), (11, 20))])
def test_bicubic_images_are_smoothed_where_they_shrink_and_labels_are_the_nearest(size, box):
    scene = scene_of(*size)
    smooth = torch.from_numpy(cv2.GaussianBlur(scene.image.permute(1, 2, 0).numpy(), (0, 0), 1)).permute(2, 0, 1)
    ours = resize(scene.replace(image=smooth), box, "stretch", "bicubic")
    for channel, picture in zip(ours.image.numpy(), smooth.numpy().astype(np.float64), strict=True):
        across = np.apply_along_axis(resampled, 1, picture, box[0])
        theirs = np.apply_along_axis(resampled, 0, across.clip(0, 255), box[1]).clip(0, 255)
        assert np.abs(channel - theirs).max() <= 1.01  # rounded to 8 bits twice
    rows = ((np.arange(box[1]) + 0.5) * size[0] / box[1]).astype(int)
    columns = ((np.arange(box[0]) + 0.5) * size[1] / box[0]).astype(int)
    assert (ours.label.numpy() == scene.label.numpy()[np.ix_(rows, columns)]).all()


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic"])
def test_a_label_resized_alone_is_that_of_the_scene(kernel):
    scene = scene_of(12, 20)
    ours = resize_label(scene.label, (7, 9), kernel)
    assert torch.equal(ours, resize(scene, (9, 7), "stretch", kernel).label)
    assert ours.dtype == torch.uint8
    assert resize_label(scene.label, (12, 20), kernel) is scene.label


def test_a_scaled_image_is_brought_to_one_size_in_one_go_as_dannets_authors_do():
    """Both sides times one factor, rounded down; Pillow from the image itself; the crop resized by the same kernel."""
    scene, look = scene_of(40, 60), settings(scale=(0.5, 1.5), crop=(16, 24), bring_to=(8, 10), kernel="bicubic")
    for seed in range(5):
        ours = augment(scene, look, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        factor = rng.uniform(0.5, 1.5)
        width, height = int(60 * factor), int(40 * factor)
        top = int(rng.integers(0, height - 16 + 1))
        left = int(rng.integers(0, width - 24 + 1))
        place = (left, top, left + 24, top + 16)
        pixels = Image.fromarray(scene.image.permute(1, 2, 0).numpy())
        theirs = pixels.resize((width, height), Image.Resampling.BICUBIC).crop(place)
        theirs = np.array(theirs.resize((10, 8), Image.Resampling.BICUBIC))
        assert np.array_equal(ours.image.permute(1, 2, 0), theirs)
        ids = Image.fromarray(scene.label.numpy()).resize((width, height), Image.Resampling.NEAREST).crop(place)
        assert np.array_equal(ours.label, np.array(ids.resize((10, 8), Image.Resampling.NEAREST)))


def test_a_scaled_image_that_is_smaller_than_the_crop_is_filled_up_before_the_crop_gets_its_size():
    scene = Scene(torch.full((3, 8, 8), 200, dtype=torch.uint8), torch.ones(8, 8, dtype=torch.uint8))
    ours = augment(
        scene,
        settings(scale=(0.5, 0.5), crop=(8, 8), bring_to=(16, 16)),
        np.random.default_rng(0),
        fill=(0, 0, 0),
    )
    assert ours.image.shape == (3, 16, 16) and (ours.image[:, :6, :6] == 200).all() and (ours.image[:, 10:] == 0).all()
    assert (ours.label[:8, :8] == 1).all() and (ours.label[8:] == IGNORE).all() and (ours.label[:, 8:] == IGNORE).all()


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_margins_in_shares_follow_the_image(factor):
    """At each scale a tenth above, a quarter below, a twentieth at the sides; what is filled up does not teach."""
    look = settings(scale=(factor, factor), crop=(100, 100), margins=(0.1, 0.25, 0.05, 0.05))
    weight = augment(scene_of(80, 100), look, np.random.default_rng(0)).weight
    height, width = int(80 * factor), int(100 * factor)
    whole = torch.zeros(max(height, 100), max(width, 100))
    whole[int(0.1 * height) : height - int(0.25 * height), int(0.05 * width) : width - int(0.05 * width)] = 1
    found = [
        (top, left)
        for top in range(whole.shape[0] - 99)
        for left in range(whole.shape[1] - 99)
        if torch.equal(weight, whole[top : top + 100, left : left + 100])
    ]
    assert found and weight.any() and not weight.all()


def test_margins_in_pixels_count_what_is_filled_up():
    weight = augment(scene_of(8, 8), settings(crop=(10, 10), margins=(1, 2, 1, 1)), np.random.default_rng(0)).weight
    expected = torch.ones(10, 10)
    expected[:8, :8] = 0
    expected[1:6, 1:7] = 1
    assert torch.equal(weight, expected)


def test_without_scale_nothing_more_is_drawn():
    rng = np.random.default_rng(0)
    assert draw_factor(settings(), rng, (8, 8)) == 1 and rng.random() == np.random.default_rng(0).random()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scale": (1.5, 0.5)}, "scale: 1.5 is above 0.5"),
        ({"scale": (0, 1)}, "greater than 0"),
        ({"scale_step": 0.1}, "scale_step: has no effect without scale"),
        ({"short_side": (4, 8)}, "short_side: has no effect without scale"),
        ({"scale": (0.7, 1.3), "scale_step": 0.25}, "0.25 does not lead from 0.7 to 1.3 in whole steps"),
        ({"scale": (0.7, 1.3), "short_side": (9, 8)}, "short_side: 9 is above 8"),
        ({"scale": (0.5, 1), "resize": (8, 8), "shape": "pad"}, "scale: does not go with shape: pad"),
        ({"crop": (9, 9), "bring_to": (4, 4), "ignore_top": 4}, "leave no row of a crop of height 4"),
        ({"scale": (0.5, 1), "margins": (1, 2, 3, 4)}, "in pixels do not go with scale; give shares"),
        (
            {"margins": (0.1, 2, 0, 0)},
            "whole numbers are pixels, numbers below 1 shares of the image; give four of a kind",
        ),
        ({"margins": (1, 1.5, 0, 0)}, "give four of a kind"),
        ({"margins": (-1, 1, 0, 0)}, "greater than or equal to 0"),
        (
            {"margins": (0.1, 0.1, 0.1, 0.1), "bring_to": (4, 4)},
            "does not go with ignore_top, ignore_bottom or bring_to",
        ),
    ],
)
def test_a_scale_or_size_that_cannot_be_is_refused(given, said):
    with pytest.raises(ValidationError, match=said):
        settings(**given)


def test_a_stepped_factor_is_one_of_the_steps_each_as_often():
    rng, stepped = np.random.default_rng(0), settings(scale=(0.7, 1.3), scale_step=0.1)
    often = Counter(draw_factor(stepped, rng, (1080, 1920)) for _ in range(1400))
    assert sorted(often) == [0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3]
    assert all(abs(count - 200) < 60 for count in often.values())
    assert {draw_factor(settings(scale=(0.9, 0.9), scale_step=0.1), rng, (8, 8)) for _ in range(3)} == {0.9}


@pytest.mark.parametrize(("height", "width"), [(1024, 2048), (1500, 900), (1053, 1920), (641, 1031)])
def test_the_shorter_side_is_kept_between_its_bounds(height, width):
    held = settings(scale=(0.3, 2.0), short_side=(450, 1100))
    plain, rng, again = settings(scale=(0.3, 2.0)), np.random.default_rng(1), np.random.default_rng(1)
    sizes = set()
    for _ in range(60):
        factor = draw_factor(held, rng, (height, width))
        tall, wide = scaled_size((height, width), None, "keep", factor)
        wanted = int(min(height, width) * draw_factor(plain, again, (height, width)))
        assert min(tall, wide) == min(max(wanted, 450), 1100)
        assert abs(tall * width - wide * height) <= 2 * max(height, width)
        sizes.add(min(tall, wide))
    assert {450, 1100} < sizes
    # Of the size that a box gives the image, not of its own.
    boxed = settings(resize=(200, 100), scale=(0.5, 0.5), short_side=(80, 90))
    factor = draw_factor(boxed, rng, (height, width))
    fitted = scaled_size((height, width), (200, 100), "keep", factor)
    assert min(fitted) == 80


def test_a_crop_that_is_to_hold_a_pixel_lies_at_any_of_the_places_that_do():
    rng, scene = np.random.default_rng(0), scene_of(6, 9)
    for pixel in ((0, 0), (5, 8), (2, 4)):
        places = {draw_box(scene, settings(crop=(3, 4)), rng, pixel)[:2] for _ in range(400)}
        row, column = pixel
        assert places == {
            (top, left)
            for top in range(4) for left in range(6)
            if top <= row < top + 3 and left <= column < left + 4
        }  # fmt: skip
    assert draw_box(scene, settings(crop=(30, 40)), rng, (5, 8)) == (0, 0, 6, 9)


def test_the_smooth_kernel_is_pillows_bilinear():
    scene = scene_of(12, 20)
    theirs = Image.fromarray(scene.image.permute(1, 2, 0).numpy()).resize((7, 9), Image.Resampling.BILINEAR)
    ours = resize(scene, (7, 9), "stretch", "smooth-bilinear").image.permute(1, 2, 0)
    assert np.array_equal(ours, np.array(theirs))
    assert not torch.equal(ours, resize(scene, (7, 9), "stretch", "bilinear").image.permute(1, 2, 0))


@pytest.mark.parametrize(("key", "value"), [("shape", "stretch"), ("shape", "pad"), ("kernel", "bicubic")])
def test_a_shape_or_kernel_without_a_box_is_refused(key, value):
    with pytest.raises(ValidationError, match=f"{key}: {value} has no effect without resize; give resize or leave"):
        settings(**{key: value})
    assert settings(**{key: value}, resize=(8, 4))


@pytest.mark.parametrize("shape", ["stretch", "pad"])
def test_crops_are_of_the_image_as_the_settings_resize_it(shape, camvid):
    asked = settings(resize=(30, 40), shape=shape, kernel="bicubic")
    scene = scene_of(20, 30)
    ours = augment(scene, asked, np.random.default_rng(0))
    assert ours.image.shape == (3, 40, 30) and torch.equal(ours.image, resize(scene, (30, 40), shape, "bicubic").image)
    data = open_data("camvid:train:day", camvid)
    rare = RareClass(temperature=1, min_pixels=0, crop_ratio=0, retries=1)
    pairs = Stream(data, data, 0, asked, asked, rare, class_statistics(data, None))
    source, target, *_ = pairs[3]
    for drawn in (source, target):
        whole = data.read(data.names.index(drawn.names[0]))
        assert torch.equal(drawn.image, resize(whole, (30, 40), shape, "bicubic").image)


def test_image_and_label_are_cut_at_the_same_uniform_place():
    scene = scene_of(6, 5)
    scene = scene.replace(image=scene.label.expand(3, 6, 5) * 40)
    rng = np.random.default_rng(0)
    places = set()
    for _ in range(200):
        top, left, height, width = draw_box(scene, settings(crop=(4, 3)), rng)
        assert (height, width) == (4, 3)
        places.add((top, left))
    assert places == {(top, left) for top in range(3) for left in range(3)}
    ours = augment(scene, settings(crop=(4, 3)), Unflipped(1, 2))
    assert torch.equal(ours.label, scene.label[1:5, 2:5]) and torch.equal(ours.image[0], 40 * ours.label)


def test_a_crop_with_too_much_of_a_class_is_drawn_again_until_one_is_right():
    # Fours of columns: class 0; class 0 and ignored; half 0, half 1.
    label = torch.tensor([[0] * 4 + [0, 0, IGNORE, IGNORE] + [0, 0, 1, 1]], dtype=torch.uint8).repeat(4, 1)
    scene = Scene(torch.zeros(3, 4, 12, dtype=torch.uint8), label)
    limited = settings(crop=(4, 4), max_class_share=0.75)
    rng = Scripted(0, 0, 0, 4, 0, 8, 0, 0)
    assert draw_box(scene, limited, rng) == (0, 8, 4, 4)
    assert rng.numbers == [0, 0], "the first good crop is taken"
    assert draw_box(scene, settings(crop=(4, 4)), Scripted(0, 4)) == (0, 4, 4, 4)
    assert draw_box(scene.replace(label=None), limited, Scripted(0, 4)) == (0, 4, 4, 4)


def test_a_share_that_equals_the_limit_breaks_it():
    label = torch.tensor([[0, 0, 0, 1, IGNORE, IGNORE, 0, 1]], dtype=torch.uint8)  # 3/4 of the labelled, then 1/2
    scene = Scene(torch.zeros(3, 1, 8, dtype=torch.uint8), label)
    assert draw_box(scene, settings(crop=(1, 4), max_class_share=0.75), Scripted(0, 0, 0, 4)) == (0, 4, 1, 4)
    assert draw_box(scene, settings(crop=(1, 4), max_class_share=0.76), Scripted(0, 0)) == (0, 0, 1, 4)


def test_the_last_of_eleven_crops_is_used_whatever_it_holds():
    scene = Scene(torch.zeros(3, 1, 20, dtype=torch.uint8), torch.zeros(1, 20, dtype=torch.uint8))
    rng = Scripted(*(number for left in range(11) for number in (0, left)), 0, 0)
    assert REDRAWS == 10
    assert draw_box(scene, settings(crop=(1, 4), max_class_share=0.5), rng) == (0, 10, 1, 4)
    assert rng.numbers == [0, 0]


def test_the_limit_holds_for_all_crops_where_it_can():
    label = torch.zeros(24, 48, dtype=torch.uint8)
    label[:, 24:] = torch.arange(24, dtype=torch.uint8) % 3
    scene = Scene(torch.zeros(3, 24, 48, dtype=torch.uint8), label)

    def broken(share: float | None) -> float:
        rng, count = np.random.default_rng(1), 0
        for _ in range(150):
            top, left, height, width = draw_box(scene, settings(crop=(12, 12), max_class_share=share), rng)
            shares = torch.bincount(label[top : top + height, left : left + width].ravel()).double() / (height * width)
            count += bool(shares.max() >= 0.75)
        return count / 150

    # Class 0 fills 3/4 of a crop with 7.5 of its 12 columns on the left: left edges 0 .. 16 of 0 .. 36.
    assert abs(broken(None) - 17 / 37) < 0.1
    assert broken(0.75) == 0


@pytest.mark.parametrize("flip", [0, 1])
def test_a_flip_mirrors_image_and_label_left_and_right(flip):
    scene = scene_of(4, 6)
    ours = augment(scene, settings(flip=flip), np.random.default_rng(0))
    across = slice(None, None, -1 if flip else 1)
    assert (ours.image.numpy() == scene.image.numpy()[:, :, across]).all()
    assert (ours.label.numpy() == scene.label.numpy()[:, across]).all()


def test_half_of_the_scenes_are_flipped_at_a_probability_of_a_half():
    scene = scene_of(1, 2, seed=1)
    assert scene.image[0, 0, 0] != scene.image[0, 0, 1]
    rng = np.random.default_rng(0)
    flipped = sum(bool((augment(scene, settings(flip=0.5), rng).image != scene.image).any()) for _ in range(400))
    assert abs(flipped - 200) < 40  # four deviations


def test_a_small_image_is_padded_below_and_right_after_the_flip():
    scene = scene_of(2, 3)
    ours = augment(scene, settings(crop=(4, 5), flip=1), np.random.default_rng(0), fill=(0.485, 0.456, 0.406))
    assert (ours.image[:, :2, :3] == scene.image.flip(-1)).all() and (ours.label[:2, :3] == scene.label.flip(-1)).all()
    outside = torch.ones(4, 5, dtype=torch.bool)
    outside[:2, :3] = False
    # 255 x 0.485 = 123.7, 255 x 0.456 = 116.3, 255 x 0.406 = 103.5
    assert {tuple(colour) for colour in ours.image[:, outside].T.tolist()} == {(124, 116, 104)}
    assert (ours.label[outside] == IGNORE).all()
    other = augment(scene, settings(crop=(4, 5)), np.random.default_rng(0), fill=(0.0, 0.5, 1.0))
    assert other.image[:, 3, 4].tolist() == [0, 128, 255]


def test_an_image_smaller_in_one_direction_is_cut_in_the_other():
    ours = augment(scene_of(2, 9), settings(crop=(4, 5)), Unflipped(0, 3))
    assert (ours.image[:, :2] == scene_of(2, 9).image[:, :, 3:8]).all()
    assert (ours.label[2:] == IGNORE).all()


def test_ignored_rows_have_weight_zero_and_there_is_no_map_without_them():
    scene = scene_of(6, 4).replace(label=None)
    ours = augment(scene, settings(crop=(5, 4), ignore_top=1, ignore_bottom=2), np.random.default_rng(0))
    assert ours.weight.dtype == torch.float32
    assert ours.weight.tolist() == [[0] * 4, [1] * 4, [1] * 4, [0] * 4, [0] * 4]
    top = augment(scene, settings(ignore_top=2), np.random.default_rng(0))
    assert top.weight[:, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert augment(scene, settings(), np.random.default_rng(0)).weight is None


def test_settings_that_ignore_every_row_are_refused():
    with pytest.raises(ValidationError, match="leave no row of a crop of height 5"):
        settings(crop=(5, 4), ignore_top=3, ignore_bottom=2)
    with pytest.raises(DataError, match=r"^picture: ignore_top and ignore_bottom leave no row of its 6; lower them$"):
        augment(scene_of(6, 4), settings(ignore_bottom=6), np.random.default_rng(0))


def test_a_scene_is_resized_then_cropped_then_flipped():
    scene = scene_of(8, 12)
    ours = augment(scene, settings(resize=(6, 4), crop=(3, 2), flip=1), np.random.default_rng(3))
    pixels = cv2.resize(scene.image.permute(1, 2, 0).numpy(), (6, 4), interpolation=cv2.INTER_LINEAR)
    rng = np.random.default_rng(3)
    top, left = rng.integers(0, 2), rng.integers(0, 5)
    assert (ours.image.permute(1, 2, 0).numpy() == pixels[top : top + 3, left : left + 2][:, ::-1]).all()


def test_a_crop_has_memory_of_its_own():
    scene = scene_of(6, 6)
    before = scene.image.clone(), scene.label.clone()
    ours = augment(scene, settings(), np.random.default_rng(0))
    assert ours.image.is_contiguous() and ours.label.is_contiguous()
    ours.image.zero_()
    ours.label.zero_()
    assert torch.equal(scene.image, before[0]) and torch.equal(scene.label, before[1])
