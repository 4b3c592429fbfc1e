"""What keeps relit images natural: even light, the image's structure, one brightness (Wu et al., DANNet, sec. 3.5).

Images are in the units that the network's normalisation makes, of deviation 1, as in the authors' code (W-zx-Y/DANNet,
network/loss.py); SSIM's constants there are those of images in [0, 1].
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

PATCH = 32
"""Pixels on a side of the patches whose brightness counts [code DANNet, loss.py]."""

STABLE = (0.01**2, 0.03**2)
"""SSIM's two constants [code DANNet, loss.py]."""


def variation(light: Tensor) -> Tensor:
    """Total variation, 2 / B (S_h / ((H - 1) W) + S_w / (H (W - 1))) with S the sums of squared differences of
    neighbours, one below and one beside the other, over images, channels (not divided by) and pixels; a scalar.

    (B, c, H, W); 0 along a side of one pixel.
    """
    images, _, height, width = light.shape
    down = (light[:, :, 1:] - light[:, :, :-1]).square().sum() / max(1, (height - 1) * width)
    across = (light[..., 1:] - light[..., :-1]).square().sum() / max(1, height * (width - 1))
    return 2 * (down + across) / images


def dissimilarity(one: Tensor, other: Tensor) -> Tensor:
    """Mean over channels and pixels of clamp((1 - SSIM) / 2, 0, 1), statistics over 3 x 3 pixels, reflected at the
    border; 0 for equal images.

    (B, c, H, W) both, of at least 2 pixels a side. Wang et al. 2004, in Godard et al.'s form (CVPR 2017).
    """
    one, other = (F.pad(image, (1, 1, 1, 1), mode="reflect") for image in (one, other))
    mean, mean_other = F.avg_pool2d(one, 3, 1), F.avg_pool2d(other, 3, 1)
    spread = F.avg_pool2d(one.square(), 3, 1) - mean.square()
    spread_other = F.avg_pool2d(other.square(), 3, 1) - mean_other.square()
    together = F.avg_pool2d(one * other, 3, 1) - mean * mean_other
    first, second = STABLE
    above = (2 * mean * mean_other + first) * (2 * together + second)
    below = (mean.square() + mean_other.square() + first) * (spread + spread_other + second)
    return ((1 - above / below) / 2).clamp(0, 1).mean()


def exposure(image: Tensor, level: Tensor | float) -> Tensor:
    """Mean over patches of PATCH x PATCH pixels of (their mean over pixels and channels - level)^2.

    (B, c, H, W). Patches do not overlap, and rows and columns that fill none are left out; a side of fewer pixels is
    one patch's.
    """
    sides = [min(PATCH, side) for side in image.shape[-2:]]
    return (F.avg_pool2d(image.mean(1, keepdim=True), sides) - level).square().mean()
