"""Colours that the colour-blind tell apart, dark images under an overlay, and what stands under a picture."""

from __future__ import annotations

import numpy as np
import pytest

from segda.data.labels.spaces import IGNORE, Space, space_named
from segda.errors import RecipeError
from segda.reporting import legend
from segda.reporting.pictures import SCALE, lightened, overlaid
from segda.reporting.safe_colours import SAFE, in_safe_colours

WITHOUT = {
    "all cones": np.eye(3),
    "long": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "middle": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "short": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""Linear RGB as people without these cones see it [Machado et al. 2009, table 1, severity 1]."""


def oklab(linear: np.ndarray) -> np.ndarray:
    """[Ottosson 2020]."""
    to_cones = [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                [0.0883024619, 0.2817188376, 0.6299787005]]  # fmt: skip
    to_lab = [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
              [0.0259040371, 0.7827717662, -0.8086757660]]  # fmt: skip
    return np.cbrt(linear.clip(0, 1) @ np.transpose(to_cones)) @ np.transpose(to_lab)


def least_distance(colours) -> float:
    share = np.array(list(colours), float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    found = []
    for matrix in WITHOUT.values():
        seen = oklab(linear @ np.transpose(matrix))
        apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
        found.append(apart[np.triu_indices(len(seen), 1)].min())
    return float(min(found))


def test_safe_colours_are_farther_apart_for_everybody_than_the_usual_ones():
    assert round(least_distance(SAFE[:19]), 3) == 0.079
    assert round(least_distance(space_named("cityscapes-19").colours.values()), 3) == 0.017
    for name in ("camvid-11", "cityscapes-19"):
        space = space_named(name)
        safe = in_safe_colours(space)
        assert safe.classes == space.classes
        assert least_distance(safe.colours.values()) > 3 * least_distance(space.colours.values())


def test_more_classes_than_safe_colours_are_refused():
    many = Space("many", {str(n): (n, n, n) for n in range(33)})
    with pytest.raises(RecipeError, match="--palette safe has 32 colours, and there are 33 classes"):
        in_safe_colours(many)


def test_a_dark_image_is_lightened_and_another_is_as_it_was():
    day = np.full((4, 6, 3), 128, np.uint8)
    assert lightened(day) is day
    night = np.full((4, 6, 3), 25.5)
    assert lightened(night).mean() / 255 == pytest.approx(0.1**0.4559, rel=1e-3)  # ln 0.35 / ln 0.1
    assert lightened(np.zeros((4, 6, 3), np.uint8)).max() == 0
    black = np.full((4, 6, 3), 1, np.uint8)  # by no more than the power 0.4
    assert lightened(black).mean() == pytest.approx(255 * (1 / 255) ** 0.4)
    space = space_named("camvid-11")
    label = np.full((4, 6), IGNORE, np.uint8)
    assert (overlaid(night.astype(np.uint8), label, space) == 25).all(), "untouched where there is no class"


def test_the_legend_names_what_is_there_by_its_share():
    space = space_named("camvid-11")
    label = np.full((10, 10), 3, np.uint8)
    label[:2], label[9, 9] = 0, IGNORE
    colours = list(space.colours.values())
    assert legend.of_classes(label, space) == [
        (colours[3], f"{space.classes[3]}  79.0 %"), (colours[0], f"{space.classes[0]}  20.0 %"),
    ]  # fmt: skip
    assert [colour for colour, _ in legend.of_entropy()] == [tuple(SCALE[at]) for at in (0, 64, 128, 191, 255)]


@pytest.mark.parametrize(("width", "lines"), [(120, 2), (600, 1), (2400, 1)])
def test_a_legend_stands_below_and_leaves_the_picture_as_it_is(width, lines):
    pixels = np.random.default_rng(0).integers(0, 256, (40, width, 3), np.uint8)
    entries = [((200, 10, 10), "one"), ((10, 10, 200), "another")]
    found = legend.under(pixels, entries)
    scale = max(1, round(width / 1000))
    assert found.shape == (40 + (lines * legend.LINE + 2 * legend.GAP) * scale, width, 3)
    assert (found[:40] == pixels).all()
    for colour, _ in entries:
        assert (found[40:] == colour).all(2).sum() > 100 * scale
