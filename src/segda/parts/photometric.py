"""Colour jitter and Gaussian blur of image batches in [0, 1], with the distributions of DACS and DAFormer.

The operations are those of kornia 0.5.8 `ColorJitter`, which the authors used; later versions of kornia changed the
meaning of brightness and contrast. Hue, saturation and value are of the hexagonal model, S = delta / (V + 1e-6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from segda.distributed.shares import Share


class Photometric(BaseModel):
    """How images are recoloured and blurred. A probability is drawn once a step, the amounts once an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter_prob: float = Field(ge=0, le=1)
    """Probability that a step's images are jittered; the authors' option 0.2 means 0.8, their code asks `> 0.2`."""
    jitter_strength: float = Field(ge=0, le=0.5)
    """s: brightness, contrast, saturation factors in [1 - s, 1 + s], hue shift in [-s, s] turns."""
    blur_prob: float = Field(ge=0, le=1)
    """Probability that a step's images are blurred."""
    blur_sigma: tuple[float, float]
    """Range of the Gaussian's standard deviation in pixels."""


def photometric(
    image: Tensor, settings: Photometric, *, share: Share, again: bool = False, masked: bool = False
) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same, jittered and blurred or not.

    again: for the second images of a step that are recoloured; they have draws of their own. masked: for those that MIC
    masks, which have them too, but one order of the operations and one blur for the whole step (lhoyer/MIC).
    """
    which = "masked " if masked else "second " if again else ""
    jitter, blur = f"{which}jitter", f"{which}blur"
    jittered = share.rng(jitter).random() < settings.jitter_prob
    blurred = share.rng(blur).random() < settings.blur_prob
    s = settings.jitter_strength
    result = []
    # Colours keep float32 whatever the networks compute in.
    with torch.autocast(image.device.type, enabled=False):
        for k, one in enumerate(image):
            if jittered:
                rng = share.rng(jitter, scene=k)
                brightness, contrast, saturation = rng.uniform(1 - s, 1 + s, 3)
                hue = rng.uniform(-s, s)
                order = (share.rng("masked order") if masked else rng).permutation(4)
                one = colour_jitter(one, brightness, contrast, saturation, hue, order)
            if blurred:
                rng = share.rng("masked sigma") if masked else share.rng(blur, scene=k)
                one = gaussian_blur(one, rng.uniform(*settings.blur_sigma))
            result.append(one)
    return torch.stack(result)


def colour_jitter(
    image: Tensor, brightness: float, contrast: float, saturation: float, hue: float, order: Iterable[int]
) -> Tensor:
    """(3, H, W) in [0, 1] -> the same. `order` permutes 0 brightness, 1 contrast, 2 saturation, 3 hue.

    brightness adds (f - 1), contrast multiplies by f (no mean is subtracted); both clamp to [0, 1]. saturation
    multiplies S and clamps it; hue adds h turns.
    """
    for operation in order:
        if operation == 0:
            image = (image + (brightness - 1)).clamp(0, 1)
        elif operation == 1:
            image = (image * contrast).clamp(0, 1)
        else:
            h, s, v = rgb_to_hsv(image)
            if operation == 2:
                s = (s * saturation).clamp(0, 1)
            else:
                h = torch.fmod(h + hue * 2 * math.pi, 2 * math.pi)
            image = hsv_to_rgb(h, s, v)
    return image


def rgb_to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(3, H, W) RGB in [0, 1] -> H in [0, 2 pi), S and V in [0, 1], each (H, W). The first of equal maxima decides."""
    value, winner = image.max(0)
    delta = value - image.min(0).values
    saturation = delta / (value + 1e-6)
    # Greys have no hue: any divisor will do.
    span = torch.where(delta == 0, torch.ones_like(delta), delta)
    red, green, blue = (value - image) / span
    sixths = torch.stack((blue - green, 2 + red - blue, 4 + green - red)).gather(0, winner[None])[0]
    return (sixths / 6) % 1.0 * 2 * math.pi, saturation, value


def hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """H in radians (any turn), S and V in [0, 1], each (H, W) -> (3, H, W) RGB in [0, 1]."""
    sixths = hue / (2 * math.pi) * 6

    def channel(n: int) -> Tensor:
        k = (n + sixths) % 6
        return value - value * saturation * torch.minimum(k, 4 - k).clamp(0, 1)

    return torch.stack((channel(5), channel(3), channel(1)))


def kernel_size(side: int) -> int:
    """Odd width in pixels of the blur's kernel for an image side: about a tenth of it (512 -> 51, 128 -> 13)."""
    tenth = math.ceil(0.1 * side)
    return math.floor(tenth - 0.5 + tenth % 2)


def gaussian_blur(image: Tensor, sigma: float) -> Tensor:
    """(3, H, W) -> the same, convolved along both axes with a Gaussian cut at `kernel_size`, edges reflected."""
    result = image[None]
    for axis in (2, 3):
        size = max(1, kernel_size(image.shape[axis - 1]))
        distance = torch.arange(size, device=image.device, dtype=image.dtype) - size // 2
        kernel = torch.exp(-(distance**2) / (2 * sigma**2))
        shape = (3, 1, size, 1) if axis == 2 else (3, 1, 1, size)
        weight = (kernel / kernel.sum()).reshape(shape[2:]).expand(shape)
        padding = (0, 0, size // 2, size // 2) if axis == 2 else (size // 2, size // 2, 0, 0)
        result = F.conv2d(F.pad(result, padding, mode="reflect"), weight, groups=3)
    return result[0]
