"""The images that a translator has painted before: its discriminators see them again (Shrivastava et al., CVPR 2017).

Painted ones alone would let a discriminator forget what the generator did some steps ago (Zhu et al., CycleGAN, ICCV
2017, sec. 4).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import DataError
from segda.networks.weights.files import is_plain


class ImagePool(nn.Module):
    """Holds so many images (0: none, and gives back what comes), all of one size; they are in checkpoints, since what a
    step learns depends on them.

    Of each image that comes: while there is room it is stored and given back. Then, as often as not, a stored one is
    given back and the new one takes its place; else the new one is given back.
    """

    images: Tensor
    """(n, 3, H, W) float32, n up to the capacity; (0,) before the first one comes."""

    def __init__(self, capacity: int):
        super().__init__()
        self.capacity = capacity
        self.register_buffer("images", torch.empty(0))
        self.returned = torch.empty(0)

    @torch.no_grad()
    def forward(self, painted: Tensor, share: Share, purpose: str) -> Tensor:
        """(B, 3, H, W) of this share -> as many to judge. All shares' images go through it in their order, in each
        process, so that all have the same pool.
        """
        every = share.concatenated(painted.detach().float())
        if share.first:
            self.returned = self._exchanged(every, share.rng(purpose))
        return self.returned[share.first_scene : share.first_scene + len(painted)]

    def _exchanged(self, painted: Tensor, rng: np.random.Generator) -> Tensor:
        if not self.capacity:
            return painted
        returned = []
        for image in painted:
            count = self.images.shape[0]
            if count and image.shape != self.images.shape[1:]:
                ours, other = (" x ".join(map(str, one[-2:])) for one in (self.images.shape, image.shape))
                raise DataError(
                    f"images of {ours} and of {other} pixels (height x width): the pool of painted images holds those "
                    "of one size; set data.source.augment.crop and data.target.augment.crop"
                )
            given = image
            if count < self.capacity:
                self.images = torch.cat([self.images, image[None]]) if count else image[None].clone()
            elif rng.random() < 0.5:
                place = int(rng.integers(count))
                given = self.images[place].clone()
                self.images[place] = image
            returned.append(given)
        return torch.stack(returned)

    def make_room(self, images: object) -> None:
        """Before its state is restored: room for what a checkpoint holds, if it is a pool that this one can be."""
        if isinstance(images, Tensor) and is_plain(images) and images.dim() == 4 and len(images) <= self.capacity:
            self.images = self.images.new_zeros(images.shape)


def make_room(method: nn.Module, state: dict[str, object]) -> None:
    """In each pool of a method for what a checkpoint's state of it holds."""
    for name, module in method.named_modules():
        if isinstance(module, ImagePool):
            module.make_room(state.get(f"{name}.images"))
