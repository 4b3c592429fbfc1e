"""Augmentation of a whole scene, always in this order: resize, crop, flip, distort, pad (as in DAFormer's pipelines).

A size may be drawn (`scale`), and crops may be brought to another size (`bring_to`), as DANNet's authors do.

The steps are functions of their own, so that a sampler which looks for a crop with enough of a rare class
decodes and resizes once and then only moves the crop. Every draw is from the `rng` given.

Three kernels. DAFormer's is OpenCV's bilinear, with labels by INTER_NEAREST, which the recorded pipeline of the authors
equals to the pixel (INTER_NEAREST_EXACT differs from it on 3-4 % of the pixels). ADVENT's is Pillow's bicubic on
8 bits, which smooths what it shrinks, with labels by Pillow's nearest, which takes other pixels than OpenCV's. The
third is Pillow's bilinear, which smooths as well (DANNet's test images).

A crop larger than the image is padded at the bottom and right, with the colour that the network sees as zero and with
IGNORE, after the flip: DAFormer's authors pad their normalised images with 0. The shape "pad" fills up before the crop
and with black instead: ESL's authors pad before they normalise.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segda.data.stream.distortion import distort
from segda.data.stream.settings import Augment, Kernel, Margins, Shape, in_shares
from segda.errors import DataError
from segda.ground.ignore import IGNORE
from segda.scene import Box, Scene, crop

IMAGENET_MEAN = (0.485, 0.456, 0.406)
"""RGB that encoders trained on ImageNet see as zero; a network says its own in `Network.fill`."""

BLACK = (0.0, 0.0, 0.0)

REDRAWS = 10
"""How often a crop that breaks `max_class_share` is drawn again; the last one is used whatever it holds."""


def augment(
    scene: Scene,
    settings: Augment,
    rng: np.random.Generator,
    fill: tuple[float, float, float] = IMAGENET_MEAN,
) -> Scene:
    """A training crop of a single scene, (3, h, w) and (h, w); `fill` is the RGB in [0, 1] of padding."""
    scene = resized(scene, settings, draw_factor(settings, rng, size_of(scene)))
    return cut(scene, draw_box(scene, settings, rng), draw_mirrored(settings, rng), settings, fill, rng)


def draw_factor(settings: Augment, rng: np.random.Generator, size: tuple[int, int]) -> float:
    """Of the size that an image of (height, width) is brought to."""
    if settings.scale is None:
        return 1.0
    least, most = settings.scale
    if settings.scale_step is None:
        factor = float(rng.uniform(least, most))
    else:
        steps = round((most - least) / settings.scale_step)
        # 0.7 + 0.1 is a little less than 0.8, and sides are rounded down.
        factor = round(least + settings.scale_step * int(rng.integers(steps + 1)), 9)
    if settings.short_side is None:
        return factor
    shorter = min(scaled_size(size, settings.resize, settings.shape))
    bounds = [side / shorter for side in settings.short_side]
    held = min(max(factor, bounds[0]), bounds[1])
    # So that the side, which is rounded down, is the bound itself.
    return factor if held == factor else math.nextafter(held, math.inf)


def resized(scene: Scene, settings: Augment, factor: float = 1.0) -> Scene:
    """The scene brought to the box of its settings, times a factor."""
    return _resized(scene, size_of(scene), settings.resize, settings.shape, settings.kernel, factor)


def fitted_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image scaled into a box given as (width, height), keeping its shape.

    The longer side of the image goes with the longer side of the box. Rounded half up, but to no less than 1.
    """
    scale = min(max(box) / max(size), min(box) / min(size))
    height, width = (max(1, int(side * scale + 0.5)) for side in size)
    return height, width


def fit_to_pad(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image scaled into a (width, height) box before the rest is filled, keeping its shape.

    The box is not turned. The side that does not reach the box's edge is rounded down, but to no less than 1. (ESL
    rounds down the product with a rounded ratio, which in 1 of 2000 sizes or so is a line less than the exact one.)
    """
    height, width = size
    if width * box[1] > box[0] * height:  # wider than the box
        return max(1, height * box[0] // width), box[0]
    return box[1], max(1, width * box[1] // height)


def padded_size(size: tuple[int, int], box: tuple[int, int]) -> tuple[int, int]:
    """(height, width) of an image filled up, at its own size, to the shape of a (width, height) box.

    This is the area that a padded image's scores belong to. Rounded down (ESL).
    """
    height, width = size
    if width * box[1] > box[0] * height:
        return width * box[1] // box[0], width
    return height, height * box[0] // box[1]


def scaled_size(
    size: tuple[int, int], box: tuple[int, int] | None, shape: Shape, factor: float = 1.0
) -> tuple[int, int]:
    """(height, width) that an image is scaled to on its way into a box, without what "pad" fills up, times a factor,
    rounded down, but to no less than 1.
    """
    if box is not None:
        size = {"keep": fitted_size(size, box), "stretch": (box[1], box[0]), "pad": fit_to_pad(size, box)}[shape]
    height, width = (max(1, int(side * factor)) for side in size)
    return height, width


def resize(scene: Scene, box: tuple[int, int] | None, shape: Shape = "keep", kernel: Kernel = "bilinear") -> Scene:
    """A single scene brought to a (width, height) box, see Augment; labels are resized to the nearest."""
    return _resized(scene, size_of(scene), box, shape, kernel)


def resize_alongside(reference: Scene, size: tuple[int, int], settings: Augment, factor: float) -> Scene:
    """A reference brought to where its image goes, which was of that size, so that the same crop fits both.

    It must be of the same shape as its image, see `same_shape`; its own size may be another. factor: that of its image.
    """
    return _resized(reference, size, settings.resize, settings.shape, settings.kernel, factor)


def same_shape(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two (height, width) are the same picture's at two scales, within a pixel of the smaller one."""
    return abs(one[0] * other[1] - one[1] * other[0]) <= max(one[1], other[1])


def size_of(scene: Scene) -> tuple[int, int]:
    """(height, width) of a single scene."""
    _, height, width = scene.image.shape
    return height, width


def _resized(
    scene: Scene,
    size: tuple[int, int],
    box: tuple[int, int] | None,
    shape: Shape,
    kernel: Kernel,
    factor: float = 1.0,
) -> Scene:
    """A single scene brought into a (width, height) box as one of (height, width) `size` goes there, times a factor."""
    scaled = scaled_size(size, box, shape, factor)
    scene = _stretched(scene, scaled, kernel)
    if box is None or shape != "pad" or scaled == (box[1], box[0]):
        return scene
    return _fill_up(scene, (box[1], box[0]), BLACK)


def _stretched(scene: Scene, size: tuple[int, int], kernel: Kernel) -> Scene:
    """A single scene of just that (height, width)."""
    assert scene.weight is None
    if size == size_of(scene):
        return scene
    label = None if scene.label is None else resize_label(scene.label, size, kernel)
    return scene.replace(image=_resize_image(scene.image, size, kernel), label=label)


def _resize_image(image: Tensor, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """(3, H, W) uint8 -> (3, h, w) uint8, a view of (h, w, 3) memory."""
    height, width = size
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())  # no copy of a reader's image
    if kernel == "bilinear":
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        kernels = {"bicubic": Image.Resampling.BICUBIC, "smooth-bilinear": Image.Resampling.BILINEAR}
        pixels = np.array(Image.fromarray(pixels).resize((width, height), kernels[kernel]))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def resize_label(label: Tensor, size: tuple[int, int], kernel: Kernel) -> Tensor:
    """(H, W) uint8 -> (h, w) uint8 for size (h, w): the nearest pixel by the kernel's library."""
    if tuple(label.shape) == size:
        return label
    height, width = size
    if kernel == "bilinear":
        return torch.from_numpy(cv2.resize(label.numpy(), (width, height), interpolation=cv2.INTER_NEAREST))
    ids = Image.fromarray(np.ascontiguousarray(label.numpy())).resize((width, height), Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(ids))


def _fill_up(scene: Scene, size: tuple[int, int], fill: tuple[float, float, float]) -> Scene:
    """A single scene padded below and right to (height, width): RGB `fill` in [0, 1], IGNORE in the label."""
    inner_height, inner_width = scene.image.shape[1:]
    colour = torch.tensor([round(255 * part) for part in fill], dtype=torch.uint8)
    image = colour[:, None, None].repeat(1, *size)
    image[:, :inner_height, :inner_width] = scene.image
    label = None
    if scene.label is not None:
        label = torch.full(size, IGNORE, dtype=torch.uint8)
        label[:inner_height, :inner_width] = scene.label
    return scene.replace(image=image, label=label)


def draw_box(scene: Scene, settings: Augment, rng: np.random.Generator, pixel: tuple[int, int] | None = None) -> Box:
    """A place for the crop, uniform over all places inside the image; smaller than the crop if the image is.

    pixel: a row and column that the crop holds. With `max_class_share` and a label, drawn again up to REDRAWS times
    (see Augment); the last draw is not looked at.
    """
    size = tuple(scene.image.shape[1:])
    height, width = (min(a, b) for a, b in zip(settings.crop or size, size, strict=True))

    def begin(side: int, length: int, at: int | None) -> int:
        first, last = (0, side - length) if at is None else (max(0, at - length + 1), min(at, side - length))
        return int(rng.integers(first, last + 1))

    row, column = (None, None) if pixel is None else pixel

    def place() -> Box:
        top = begin(size[0], height, row)
        return top, begin(size[1], width, column), height, width

    box = place()
    if settings.max_class_share is None or scene.label is None:
        return box
    for _ in range(REDRAWS):
        counts = np.bincount(crop(scene.label, box).numpy().ravel(), minlength=256)[:IGNORE]
        if (counts > 0).sum() > 1 and counts.max() / counts.sum() < settings.max_class_share:
            break
        box = place()
    return box


def draw_mirrored(settings: Augment, rng: np.random.Generator) -> bool:
    """Whether the crop is mirrored."""
    return rng.random() < settings.flip


def cut(
    scene: Scene,
    box: Box,
    mirrored: bool,
    settings: Augment,
    fill: tuple[float, float, float],
    rng: np.random.Generator | None,
) -> Scene:
    """The box of a single scene, brought to its size, mirrored or not, distorted or not, padded to the crop's size, in
    memory of its own.

    Has a weight map if rows or margins are ignored; padded pixels are IGNORE in the label and count in the weight.
    fill: the RGB in [0, 1] of padding. rng: of the distortion; None: colours stay as they are.
    """
    inside = within(size_of(scene), settings.margins or (0, 0, 0, 0), box)
    scene = scene.replace(image=crop(scene.image, box), label=crop(scene.label, box))
    if settings.bring_to is not None:
        if settings.crop not in (None, box[2:]):
            scene = _fill_up(scene, settings.crop, fill)
        scene = _stretched(scene, settings.bring_to, settings.kernel)
    if mirrored:
        label = None if scene.label is None else scene.label.flip(-1)
        scene = scene.replace(image=scene.image.flip(-1), label=label)
    if settings.distort is not None and rng is not None:
        scene = scene.replace(image=distort(scene.image, settings.distort, rng))
    height, width = settings.size or box[2:]
    if (height, width) != size_of(scene):
        scene = _fill_up(scene, (height, width), fill)
    weight = None
    if settings.ignore_top or settings.ignore_bottom:
        if settings.ignore_top + settings.ignore_bottom >= height:
            raise DataError(f"{scene.names[0]}: ignore_top and ignore_bottom leave no row of its {height}; lower them")
        weight = torch.ones(height, width)
        weight[: settings.ignore_top] = 0
        weight[height - settings.ignore_bottom :] = 0
    if settings.margins is not None:
        weight = torch.full((height, width), 0.0 if in_shares(settings.margins) else 1.0)
        weight[: box[2], : box[3]] = inside.flip(-1) if mirrored else inside
    plain = torch.contiguous_format
    label = None if scene.label is None else scene.label.clone(memory_format=plain)
    return scene.replace(image=scene.image.clone(memory_format=plain), label=label, weight=weight)


def within(size: tuple[int, int], margins: Margins, box: Box) -> Tensor:
    """(h, w) of a box of an image (height, width): 0 in its margins at the top, bottom, left and right, else 1."""
    weight = torch.zeros(size)
    sides = [*(size[:1] * 2), *(size[1:] * 2)] if in_shares(margins) else [1] * 4
    top, bottom, left, right = (int(side * margin) for side, margin in zip(sides, margins, strict=True))
    weight[top : max(top, size[0] - bottom), left : max(left, size[1] - right)] = 1
    return crop(weight, box)
