"""Colours distorted on 8 bits: levels worked by hand, against floating point, and where it stands in the pipeline."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from segda.data.sets.datasets import open_data
from segda.data.stream.augment import augment
from segda.data.stream.distortion import distort, levels
from segda.data.stream.settings import Augment, Distortion
from segda.data.stream.stream import Stream
from segda.scene import IGNORE, Scene

NOTHING = {"brightness": 0, "contrast": (1, 1), "saturation": (1, 1), "hue": 0, "probability": 1}
LIVELY = Distortion(brightness=32, contrast=(0.5, 1.5), saturation=(0.5, 1.5), hue=18, probability=0.5)
PLAIN = {"resize": None, "crop": None, "max_class_share": None, "flip": 0}


def settings(**given) -> Distortion:
    return Distortion(**NOTHING | given)


class Scripted:
    """A generator that says what it is told: for `random` a list, else one end of the range that it is given."""

    def __init__(self, *coins: float, upper: bool = True):
        self.coins = list(coins)
        self.upper = upper
        self.asked: list[tuple[float, float]] = []

    def random(self) -> float:
        return self.coins.pop(0)

    def uniform(self, low: float, high: float) -> float:
        self.asked.append((low, high))
        return high if self.upper else low

    def integers(self, low: int, high: int) -> int:
        self.asked.append((low, high))
        return high - 1 if self.upper else low


YES, NO = 0.0, 1.0
CONTRAST_FIRST, CONTRAST_LAST = 0.0, 1.0


def pixel(*colour: int) -> torch.Tensor:
    return torch.tensor(colour, dtype=torch.uint8).reshape(3, 1, 1)


def changed(image: torch.Tensor, given: Distortion, *coins: float, upper: bool = True) -> list[int]:
    rng = Scripted(*coins, upper=upper)
    ours = distort(image, given, rng)
    assert not rng.coins
    return ours.flatten().tolist()


def picture(height: int = 6, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width)).astype(np.uint8))


# The four changes


def test_levels_are_cut_off_and_fractions_are_dropped():
    assert levels(1, 10.6)[[0, 100, 244, 245, 250]].tolist() == [10, 110, 254, 255, 255]
    assert levels(1, -10.6)[[0, 10, 11, 12, 255]].tolist() == [0, 0, 0, 1, 244]
    assert levels(0.5, 0)[[0, 1, 3, 101, 255]].tolist() == [0, 0, 1, 50, 127]
    assert levels(1.5, 0)[[1, 3, 170, 171, 255]].tolist() == [1, 4, 255, 255, 255]
    assert levels(1, 0).tolist() == list(range(256))


def test_brightness_is_added_to_all_colours():
    bright = settings(brightness=20.5)
    coins = (YES, CONTRAST_FIRST, NO, NO, NO)
    assert changed(pixel(0, 100, 250), bright, *coins) == [20, 120, 255]
    assert changed(pixel(0, 100, 250), bright, *coins, upper=False) == [0, 79, 229]


def test_contrast_multiplies_all_colours_without_a_mean():
    coins = (NO, CONTRAST_FIRST, YES, NO, NO)
    assert changed(pixel(3, 100, 200), settings(contrast=(0.5, 1.5)), *coins) == [4, 150, 255]
    assert changed(pixel(3, 100, 200), settings(contrast=(0.5, 1.5)), *coins, upper=False) == [1, 50, 100]


def test_saturation_leaves_the_brightest_colour_and_pulls_the_others_to_it():
    coins = (NO, CONTRAST_FIRST, NO, YES, NO)
    # S = 255 x 160 / 200 = 204; half of it is 102, and 200 x (1 - 102 / 255) = 120.
    assert changed(pixel(200, 40, 40), settings(saturation=(0.5, 1)), *coins, upper=False) == [200, 120, 120]
    assert changed(pixel(200, 100, 30), settings(saturation=(0, 1)), *coins, upper=False) == [200, 200, 200]
    assert changed(pixel(77, 77, 77), settings(saturation=(0.5, 1.5)), *coins) == [77, 77, 77]


def test_a_hue_turns_and_its_upper_end_is_not_drawn():
    coins = (NO, CONTRAST_FIRST, NO, NO, YES)
    # 61 - 1 and -60 of 180 steps are a third of a turn.
    assert changed(pixel(255, 0, 0), settings(hue=61), *coins) == [0, 255, 0]
    assert changed(pixel(255, 0, 0), settings(hue=60), *coins, upper=False) == [0, 0, 255]
    rng, seen = np.random.default_rng(0), set()
    for _ in range(100):
        red, green, blue = distort(pixel(255, 0, 0), settings(hue=3), rng).flatten().tolist()
        seen.add(round(colorsys.rgb_to_hsv(red, green, blue)[0] * 180) % 180)
    assert seen == {177, 178, 179, 0, 1, 2}
    assert changed(pixel(255, 0, 0), settings(hue=0), *coins) == [255, 0, 0]


@pytest.mark.parametrize(
    ("coins", "asked"),
    [
        ((YES, CONTRAST_FIRST, YES, YES, YES), [(-4, 4), (0.5, 2), (0.25, 3), (-7, 7)]),
        ((YES, CONTRAST_LAST, YES, YES, YES), [(-4, 4), (0.25, 3), (-7, 7), (0.5, 2)]),
        ((NO, CONTRAST_LAST, NO, YES, NO), [(-7, 7)]),
    ],
)
def test_amounts_are_drawn_in_the_order_of_the_changes_and_only_for_those_that_happen(coins, asked):
    rng = Scripted(*coins)
    distort(picture(), settings(brightness=4, contrast=(0.5, 2), saturation=(0.25, 3), hue=7), rng)
    assert rng.asked == asked and not rng.coins


def test_contrast_before_saturation_gives_other_colours_than_after_it():
    given = settings(contrast=(1, 2), saturation=(0, 1))
    # Doubled and cut off at 255, then grey; or grey, then doubled.
    first = changed(pixel(200, 50, 10), given, NO, CONTRAST_FIRST, YES, YES, NO)
    assert first[0] == 255 and first[1:] == pytest.approx([100, 20], abs=2)
    grey = settings(contrast=(2, 2), saturation=(0, 0))
    assert changed(pixel(100, 50, 10), grey, NO, CONTRAST_LAST, YES, NO, YES) == [200, 200, 200]


def test_saturation_and_hue_are_those_of_the_standard_library_up_to_eight_bits():
    image = picture(12, 12)
    ours = distort(image, settings(saturation=(0.6, 0.6), hue=16), Scripted(NO, CONTRAST_FIRST, NO, YES, YES))
    for colour, mine in zip(image.flatten(1).T.tolist(), ours.flatten(1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(part / 255 for part in colour))
        theirs = [255 * part for part in colorsys.hsv_to_rgb(h + 15 / 180, 0.6 * s, v)]
        # Each way there and back rounds the hue to two degrees, up to 1 / 60 of the span of the colours.
        assert np.abs(np.subtract(mine, theirs)).max() <= 3 + 255 / 60


def test_each_change_happens_as_often_as_it_is_said():
    grey = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    given = settings(contrast=(1.2, 1.2), probability=0.25)
    rng = np.random.default_rng(0)
    count = sum(bool((distort(grey, given, rng) != grey).any()) for _ in range(800))
    assert abs(count - 200) < 50  # four deviations


def test_with_a_probability_of_zero_nothing_changes():
    image = picture()
    assert torch.equal(distort(image, LIVELY.model_copy(update={"probability": 0.0}), np.random.default_rng(0)), image)


def test_an_image_is_left_as_it_was_and_the_generator_alone_decides():
    image = picture()
    before = image.clone()
    ours = [distort(image, LIVELY, np.random.default_rng(seed)) for seed in (5, 5, 6)]
    assert torch.equal(image, before)
    assert ours[0].dtype == torch.uint8 and ours[0].shape == image.shape
    assert torch.equal(ours[0], ours[1]) and not torch.equal(ours[0], ours[2])


# In the pipeline


def scene() -> Scene:
    label = torch.from_numpy(np.random.default_rng(1).integers(0, 5, (6, 8)).astype(np.uint8))
    return Scene(picture(), label, names=("picture",))


def test_colours_are_distorted_after_crop_and_flip_and_labels_are_not():
    given = PLAIN | {"crop": (4, 4), "flip": 0.5}
    for seed in range(6):
        ours = augment(scene(), Augment(**given, distort=LIVELY), np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        plain = augment(scene(), Augment(**given), rng)
        assert torch.equal(ours.image, distort(plain.image, LIVELY, rng)) and torch.equal(ours.label, plain.label)
        assert ours.image.is_contiguous()


def test_padding_keeps_the_colour_that_the_network_sees_as_zero():
    always = Distortion(brightness=100, contrast=(2, 2), saturation=(0, 0), hue=90, probability=1)
    ours = augment(scene(), Augment(**PLAIN | {"crop": (9, 8)}, distort=always), np.random.default_rng(0), (0.4, 0, 1))
    assert {tuple(colour) for colour in ours.image[:, 6:].flatten(1).T.tolist()} == {(102, 0, 255)}
    assert (ours.label[6:] == IGNORE).all()
    assert not torch.equal(ours.image[:, :6], picture())


def test_each_domain_and_each_image_is_distorted_for_itself(camvid):
    data = open_data("camvid:train:day", camvid)

    def pairs(source: Distortion | None, target: Distortion | None) -> Stream:
        return Stream(data, data, 0, Augment(**PLAIN, distort=source), Augment(**PLAIN, distort=target))

    seldom = LIVELY.model_copy(update={"probability": 0.15})  # every second image, 1 - 0.85^4
    plain, left, both = pairs(None, None), pairs(seldom, None), pairs(seldom, seldom)
    changes = []
    for n in range(8):
        assert torch.equal(left[n][1].image, plain[n][1].image)
        assert torch.equal(both[n][0].image, left[n][0].image)
        pairs_of_scenes = zip(both[n][:2], plain[n][:2], strict=True)
        changes.append([not torch.equal(one.image, other.image) for one, other in pairs_of_scenes])
    source, target = zip(*changes, strict=True)
    assert set(source) == set(target) == {True, False} and source != target


# Mistakes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"contrast": (1.5, 0.5)}, r"contrast: \[1.5, 0.5\] is no range; write the lower end first"),
        ({"saturation": (1.5, 0.5)}, r"saturation: \[1.5, 0.5\] is no range"),
        ({"saturation": (-0.5, 1)}, r"saturation"),
        ({"brightness": 256}, r"brightness"),
        ({"hue": -1}, r"hue"),
        ({"hue": 1.5}, r"hue"),
        ({"probability": 1.1}, r"probability"),
        ({"jitter": 1}, r"jitter"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(ValidationError, match=message):
        settings(**given)


@pytest.mark.parametrize("key", NOTHING)
def test_no_number_has_a_default(key):
    with pytest.raises(ValidationError, match="Field required"):
        Distortion(**{name: value for name, value in NOTHING.items() if name != key})
