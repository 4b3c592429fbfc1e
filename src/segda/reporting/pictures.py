"""Label maps and entropy maps as pictures: colours, overlays, the entropy's scale, PNG and JPEG bytes.

Entropy is shown relative to its largest value: 0 (certain) to 1 (H = ln C nats, all classes equal), on
matplotlib's "viridis": dark violet 0, blue 0.25, green 0.5-0.75, yellow 1. It is perceptually uniform, so
that equal steps look equal, also in grey and to the colour-blind; all pictures have the same scale and can be
compared.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any, Literal

import matplotlib
import numpy as np
from PIL import Image

from segda.data.files.signed import signature
from segda.data.labels.spaces import Space

WRITER = "segda predict"
"""Signs the files of predictions."""

OVERLAY = 0.5
"""How much of the class colour an overlay has unless another share is given; the image is the rest."""

DARK = 0.35
"""Mean of an image, of white; photographs by day have more."""

SCALE = (matplotlib.colormaps["viridis"](np.arange(256))[:, :3] * 255 + 0.5).astype(np.uint8)
"""(256, 3) RGB of relative entropy 0, 1/255, ..., 1."""


def coloured(label: np.ndarray, space: Space) -> np.ndarray:
    """(H, W) train ids -> (H, W, 3) RGB in the space's colours; black where no class."""
    return space.palette()[label]


def overlaid(image: np.ndarray, label: np.ndarray, space: Space, opacity: float = OVERLAY) -> np.ndarray:
    """(H, W, 3) RGB image under class colours of that opacity, 0 to 1; untouched where the label is no class.

    A dark image is lightened first, or what is in it would not be seen under the colours.
    """
    mixed = (1 - opacity) * lightened(image) + opacity * coloured(label, space)
    return np.where((label < len(space.classes))[..., None], mixed + 0.5, image).astype(np.uint8)


def lightened(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB of 0 to 255 -> the same, or where its mean is below DARK of white, by the power that brings that
    mean there (no less than 0.4, which a black image would ask for).
    """
    mean = max(float(image.mean()) / 255, 1e-6)
    if mean >= DARK:
        return image
    return 255 * (image / 255) ** max(math.log(DARK) / math.log(mean), 0.4)


def entropy_picture(entropy: np.ndarray, classes: int) -> np.ndarray:
    """(H, W) entropy in nats -> (H, W, 3) RGB of H / ln C on the scale; values past the ends stay at the
    ends.
    """
    relative = np.clip(entropy / math.log(max(classes, 2)), 0, 1)
    return SCALE[(relative * 255 + 0.5).astype(np.uint8)]


def palette_png(ids: np.ndarray, palette: np.ndarray) -> bytes:
    """(H, W) uint8 ids, (256, 3) RGB of each -> an 8-bit palette PNG whose indices are the ids; signed."""
    picture = Image.fromarray(ids)
    picture.putpalette(palette.tobytes())
    return _bytes(picture, "PNG", pnginfo=signature(WRITER))


def png(pixels: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB -> PNG; signed."""
    return _bytes(Image.fromarray(pixels), "PNG", pnginfo=signature(WRITER))


def data_uri(pixels: np.ndarray, kind: Literal["PNG", "JPEG"]) -> str:
    """(H, W, 3) uint8 RGB as text for an HTML page: PNG for flat colours, JPEG for photographs."""
    content = base64.b64encode(_bytes(Image.fromarray(pixels), kind)).decode()
    return f"data:image/{kind.lower()};base64,{content}"


def shrunk(pixels: np.ndarray, width: int, *, flat: bool) -> np.ndarray:
    """(H, W, 3) RGB no wider than `width`, its shape kept. `flat`: class colours, never blended."""
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    if pixels.shape[1] <= width:
        return pixels
    kernel = Image.Resampling.NEAREST if flat else Image.Resampling.BOX
    return np.array(Image.fromarray(pixels).resize((width, height), kernel))


def _bytes(picture: Image.Image, kind: str, **more: Any) -> bytes:
    content = io.BytesIO()
    options: dict[str, dict[str, Any]] = {"PNG": {"optimize": True}, "JPEG": {"quality": 85}}
    picture.save(content, kind, **options[kind], **more)
    return content.getvalue()
