"""VFM-UDA's networks: a vision foundation model and a small decoder (Englert et al., CVPR workshops 2024), or with
ViT-Adapter and a pyramid (VFM-UDA++, ICCV workshops 2025).

As in the authors' code (tue-mps/vfm-uda, tue-mps/vfm-uda-plusplus) an image is enlarged to 1.1 times its size, rounded
down to whole patches, and logits are brought back to the image's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import RecipeError
from segda.networks.decoders.daformer import upsample
from segda.networks.decoders.vfm import Light, Pyramid
from segda.networks.encoders.adapter import ViTAdapter
from segda.networks.encoders.dino import ViT
from segda.networks.encoders.encoder import learning_layers
from segda.networks.encoders.table import encoder_row, of_family, on_grid
from segda.networks.encoders.tuning import tuned_weights
from segda.networks.network import Head, Network, Output, refuse_smaller
from segda.networks.weights.load import load_encoder_weights


class VFM(Network):
    """Images of any size, from one patch a side.

    encoder: a vision transformer of ENCODERS. decoder: light, of its last map alone; adapter, ViT-Adapter's four maps
    and a pyramid. weights: where the encoder starts from (see networks/weights/load.py).
    enlarge: times the image's size, rounded down to whole patches; null: the nearest whole patches.
    mask_token: learnt, or kept: the token with which `method.masking` hides patches (`of: tokens`).
    freeze: true, or the number of the encoder's first blocks that do not learn, nor does its stem.
    tune: full, all of the encoder that is not frozen; tokens, or lora: the encoder is frozen, and they learn as fast as
    the head (encoders/tuning.py).
    tune_tokens: of `tune: tokens`, so many a block.
    tune_rank: of the tokens, or of lora's changes.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        encoder: str,
        decoder: Literal["light", "adapter"],
        weights: str,
        enlarge: float | None,
        mask_token: Literal["learnt", "kept"] = "kept",
        freeze: bool | int = False,
        tune: Literal["full", "tokens", "lora"] = "full",
        tune_tokens: int | None = None,
        tune_rank: int | None = None,
    ):
        super().__init__()
        row = encoder_row(encoder, of_family("dinov2", "dinov3"))
        if enlarge is not None and not 0.5 <= enlarge <= 4:
            raise RecipeError(f"network.enlarge: {enlarge:g} is not in [0.5, 4]")
        if decoder == "adapter" and mask_token == "learnt":
            raise RecipeError("network.mask_token: learnt has no effect with decoder adapter, which hides no patch")
        check_tuning(tune, tune_tokens, tune_rank, freeze)
        self.class_names = tuple(class_names)
        self.heads, self.align_corners = ("main",), False
        self.fill = row.normalisation.mean
        built = row.build(encoder)
        assert isinstance(built, ViT)
        self.encoder = built
        self.multiple, self.factor = row.multiple, enlarge
        self.adapter = ViTAdapter(built) if decoder == "adapter" else None
        if self.adapter is None:
            self.stride = row.multiple
            self.decoder: nn.Module = Light(built.channels, self.classes)
        else:
            self.stride = 32
            self.decoder = Pyramid(self.adapter.channels, self.classes)
        self.register_buffer("mean", torch.tensor(row.normalisation.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(row.normalisation.deviation).view(3, 1, 1))
        self.origin = load_encoder_weights(built, weights)
        if self.adapter is None:
            built.embeddings.get_parameter("mask_token").requires_grad_(mask_token == "learnt")
        else:
            built.cut()
        built.freeze(freeze)
        if tune_rank is not None:
            built.tune(tokens=tune_tokens, rank=tune_rank)

    def inside(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) images at the size that the encoder sees."""
        if self.factor is None:
            return on_grid(image, self.multiple)
        # Rounded off first: 1.1 is no float, and 14 * 10 / 1.1 * 1.1 may be less than 140.
        sides = [
            max(1, int(round(side * self.factor, 6) // self.multiple)) * self.multiple for side in image.shape[-2:]
        ]
        return F.interpolate(image, sides, mode="bilinear", align_corners=False)

    def tokens(self, image: Tensor) -> tuple[int, int]:
        """Rows and columns of the patches that images inside become."""
        return image.shape[-2] // self.multiple, image.shape[-1] // self.multiple

    def features(self, image: Tensor) -> list[Tensor]:
        return self.maps(self.entered(image))

    def entered(self, image: Tensor) -> Tensor:
        refuse_smaller(image, self.multiple, f"vfm with encoder {self.encoder.name}")
        return self.inside(image)

    def maps(self, inside: Tensor, hidden: Tensor | None = None) -> list[Tensor]:
        """Of images that have their size."""
        normalised = (inside - self.mean) / self.deviation
        if self.adapter is not None:
            return self.adapter(self.encoder, normalised)
        return self.encoder(normalised, hidden)

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.decoder(features)

    def forward(self, image: Tensor, size: Sequence[int] | None = None, hidden: Tensor | None = None) -> Output:
        """size: the image is inside already, and the logits are for an image of that size. hidden: (B, h, w) bool: the
        patches that the mask token replaces.
        """
        features = self.maps(self.entered(image) if size is None else image, hidden)
        # In the network's own type: under autocast the decoder's is bfloat16, too coarse to interpolate in.
        cells = self.decode(features).to(self.mean.dtype)
        logits = upsample(cells, image.shape[-2:] if size is None else size)
        return Output({"main": Head(logits, cells=cells)}, features)

    def infer(self, image: Tensor) -> Tensor:
        return self(image).logits

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At the image's size already, as the authors' windows are."""
        return self.infer(image)

    @property
    def any_size(self) -> bool:
        """Not where images are enlarged to whole patches: the numbers of these are rounded off."""
        return self.factor is None and self.encoder.any_size

    def blocks(self) -> list[nn.Module]:
        return [*self.encoder.blocks(), *([] if self.adapter is None else self.adapter.blocks())]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """encoder: all that learns of it; head: decoder and adapter, and what tunes a frozen encoder. The authors decay
        norms and biases too.
        """
        parts = [self.decoder] if self.adapter is None else [self.adapter, self.decoder]
        tuned = tuned_weights(self.encoder)
        apart = {id(weight) for weight in tuned}
        groups = {
            "encoder": [one for one in self.encoder.parameters() if one.requires_grad and id(one) not in apart],
            "head": [*tuned, *(weight for part in parts for weight in part.parameters())],
        }
        return {name: weights for name, weights in groups.items() if weights}

    def layers(self) -> list[list[nn.Parameter]]:
        return [] if tuned_weights(self.encoder) else learning_layers(self.encoder)


def check_tuning(tune: str, tokens: int | None, rank: int | None, freeze: bool | int) -> None:
    """RecipeError unless what a way of tuning needs is given, and nothing else."""
    needed = {"full": (), "lora": ("tune_rank",), "tokens": ("tune_rank", "tune_tokens")}[tune]
    for key, number, least in (("tune_rank", rank, 1), ("tune_tokens", tokens, 2)):
        if number is None and key in needed:
            raise RecipeError(f"network.{key}: missing; tune: {tune} needs it, a whole number from {least}")
        if number is not None and key not in needed:
            raise RecipeError(f"network.{key}: {number} has no effect with tune: {tune}; remove it")
        if number is not None and number < least:
            raise RecipeError(f"network.{key}: {number} is below {least}")
    if needed and freeze is not False:
        raise RecipeError(f"network.freeze: {freeze} has no effect with tune: {tune}, which freezes all; remove it")
