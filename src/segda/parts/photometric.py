"""Colour jitter and Gaussian blur of image batches in [0, 1], with the distributions of DACS and DAFormer.

The operations are those of kornia 0.5.8 `ColorJitter`, which the authors used; later versions of kornia changed the
meaning of brightness and contrast. VFM-UDA has those of torchvision. Hue, saturation and value are of the hexagonal
model, S = delta / (V + 1e-6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator
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


Strength = Annotated[float, Field(ge=0, le=1)]


class Strengths(BaseModel):
    """Factors of an operation are in [1 - s, 1 + s], hue shifts in [-s, s] turns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brightness: Strength
    """s of its factor."""
    contrast: Strength
    """s of its factor."""
    saturation: Strength
    """s of its factor."""
    hue: Annotated[float, Field(ge=0, le=0.5)]
    """s of its shift."""


class Blended(BaseModel):
    """The same with torchvision's operations (`blended_jitter`), all of it drawn once an image."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter_prob: float = Field(ge=0, le=1)
    """Probability that an image is jittered."""
    jitter_strengths: Strengths
    """How far."""
    grey_prob: float = Field(ge=0, le=1)
    """Probability that an image becomes grey, after the jitter."""
    blur_prob: float = Field(ge=0, le=1)
    """Probability that an image is blurred."""
    blur_sigma: tuple[float, float] | None
    """As above; None where none is blurred."""

    @model_validator(mode="after")
    def _a_blur_has_a_width(self) -> Blended:
        if (self.blur_sigma is None) != (self.blur_prob == 0):
            raise ValueError("blur_sigma is null where blur_prob is 0, and a range of pixels otherwise")
        return self


def _operations(given: Any) -> str:
    """Whose operations the settings are of. The names are no words, so that no message takes them for keys."""
    blended = "jitter_strengths" in given if isinstance(given, Mapping) else isinstance(given, Blended)
    return "of torchvision" if blended else "of kornia"


Colours = Annotated[
    Annotated[Photometric, Tag("of kornia")] | Annotated[Blended, Tag("of torchvision")], Discriminator(_operations)
]
"""Settings of one kind or the other; those with `jitter_strengths` are Blended."""

Images = Literal["", "second", "masked", "target", "held source", "held target"]
"""Which of a step's images are recoloured: each kind has draws of its own. Of `masked`, those that MIC masks, the step
has one order of the operations and one blur (lhoyer/MIC), but not with Blended."""


def photometric(image: Tensor, settings: Photometric | Blended, *, share: Share, which: Images = "") -> Tensor:
    """(B, 3, H, W) in [0, 1] -> the same, jittered and blurred or not."""
    # Colours keep float32 whatever the networks compute in.
    with torch.autocast(image.device.type, enabled=False):
        if isinstance(settings, Blended):
            return torch.stack([_blended(one, settings, share, f"{which} blended", k) for k, one in enumerate(image)])
        return _together(image, settings, share, which)


def _together(image: Tensor, settings: Photometric, share: Share, which: Images) -> Tensor:
    jitter, blur = f"{which} jitter".strip(), f"{which} blur".strip()
    jittered = share.rng(jitter).random() < settings.jitter_prob
    blurred = share.rng(blur).random() < settings.blur_prob
    masked, s = which == "masked", settings.jitter_strength
    result = []
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


def _blended(image: Tensor, settings: Blended, share: Share, purpose: str, scene: int) -> Tensor:
    """A single image, (3, H, W). All is drawn, whatever happens, so that no draw moves another."""
    rng, s = share.rng(purpose, scene=scene), settings.jitter_strengths
    jittered, grey_too, blurred = rng.random(3) < (settings.jitter_prob, settings.grey_prob, settings.blur_prob)
    brightness, contrast, saturation = (
        rng.uniform(max(1 - one, 0), 1 + one) for one in (s.brightness, s.contrast, s.saturation)
    )
    hue, order = rng.uniform(-s.hue, s.hue), rng.permutation(4)
    if jittered:
        image = blended_jitter(image, brightness, contrast, saturation, hue, order)
    if grey_too:
        image = grey(image).expand_as(image)
    if blurred and settings.blur_sigma is not None:
        image = gaussian_blur(image, rng.uniform(*settings.blur_sigma))
    return image


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


def blended_jitter(
    image: Tensor, brightness: float, contrast: float, saturation: float, hue: float, order: Iterable[int]
) -> Tensor:
    """The same as torchvision's ColorJitter and Pillow have it: brightness f multiplies, contrast moves away from the
    mean grey of the image, m + f (x - m), saturation from the grey of each pixel; all clamp to [0, 1].
    """
    for operation in order:
        if operation == 0:
            image = (image * brightness).clamp(0, 1)
        elif operation == 1:
            mean = grey(image).mean()
            image = (mean + contrast * (image - mean)).clamp(0, 1)
        elif operation == 2:
            plain = grey(image)
            image = (plain + saturation * (image - plain)).clamp(0, 1)
        else:
            h, s, v = rgb_to_hsv(image)
            image = hsv_to_rgb(torch.fmod(h + hue * 2 * math.pi, 2 * math.pi), s, v)
    return image


def grey(image: Tensor) -> Tensor:
    """(3, H, W) -> (1, H, W), the luma of ITU-R 601-2, with torchvision's digits."""
    red, green, blue = image
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[None]


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
