"""The spectrum of images: the look of one is given to another (Yang and Soatto, FDA, CVPR 2020, sec. 3.1).

The window of low frequencies is the paper's, symmetric about zero, as in the numpy function of the authors' code
(YanchaoYang/FDA utils/__init__.py:64). Their training calls one for torch that leaves out the highest row and column of
it, and changes nothing at all where only the mean would change.
"""

from __future__ import annotations

import torch
from torch import Tensor

from segda.errors import DataError


def swap(image: Tensor, style: Tensor, beta: float) -> Tensor:
    """The image with the amplitudes of `style` at its low frequencies and its own phase everywhere.

    Two (B, 3, H, W) of one size, each channel by itself -> float32, neither clipped nor rounded. Low are frequencies of
    at most b = floor(beta min(H, W)) periods along each side: with b = 0 the mean alone is swapped, with beta 0.5 all.
    Where the image has no amplitude it has no phase either; it is 0 then.  Yang and Soatto 2020, eq. 3.

    DataError where the sizes differ.
    """
    size = image.shape[-2:]
    if style.shape[-2:] != size:
        (height, width), (tall, wide) = size, style.shape[-2:]
        raise DataError(
            f"source images are {width}x{height} and the target's, whose look they take, {wide}x{tall}; give "
            "data.source.augment.crop and data.target.augment.crop one size"
        )
    content, look = torch.fft.rfft2(image.float()), torch.fft.rfft2(style.float())
    amplitude = content.abs()
    phase = torch.where(amplitude > 0, content / amplitude, 1)
    low = _low(size[0], size[1], int(beta * min(size)), image.device)
    return torch.fft.irfft2(torch.where(low, look.abs() * phase, content), s=size)


def _low(height: int, width: int, most: int, device: torch.device) -> Tensor:
    """(H, W // 2 + 1) bool: which frequencies of `rfft2` have at most so many periods along each side."""
    rows = torch.arange(height, device=device)
    down = torch.minimum(rows, height - rows)  # the second half stands for negative frequencies
    across = torch.arange(width // 2 + 1, device=device)
    return (down <= most)[:, None] & (across <= most)
