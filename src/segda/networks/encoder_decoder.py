"""Any encoder with any decoder: the networks that DAFormer was compared with, and more of their kind.

The two tables have the parts as they were published (Hoyer et al., CVPR 2022, tables 1, 2 and 6; numbers from the
authors' configs/_base_/models); `mit_daformer` is the network that the paper chose, with dials of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import RecipeError, nearest
from segda.networks.decoders.attention import DANet, ISAFusion, ISANet
from segda.networks.decoders.daformer import ASPP, SepASPP, Stacked, bottleneck_aspp, pointwise, upsample
from segda.networks.decoders.deeplab import DeepLabV3Plus, DilatedSum
from segda.networks.decoders.pyramid import SegFormer, UPerNet
from segda.networks.decoders.refinenet import RefineNet
from segda.networks.encoders.encoder import Norm, learning_groups, learning_layers
from segda.networks.encoders.pyramids import PYRAMIDS
from segda.networks.encoders.table import encoder_row, on_grid
from segda.networks.network import Head, Network, Output, lay_out, refuse_smaller
from segda.networks.weights.load import load_encoder_weights


@runtime_checkable
class Headed(Protocol):
    """A decoder with more heads than the main one."""

    def each(self, levels: Sequence[Tensor]) -> dict[str, Tensor]:
        """The logits of all heads, by name."""
        ...


@dataclass(frozen=True)
class Decoder:
    """One decoder: build(encoder's channels, classes, **settings, dropout=...), its module's call gives the logits.

    heads: with more than the main one, the module is Headed. dropout: whether it has any.
    deepest: the stride that the encoder's last map is enlarged to first, for every use of it (mmsegmentation's neck).
    pools: batch norm sees maps of one cell, so that training needs two images.
    align_corners: how its logits are upsampled.
    """

    build: Callable[..., nn.Module]
    settings: Mapping[str, Any]
    heads: tuple[str, ...] = ("main",)
    dropout: bool = True
    deepest: int | None = None
    pools: bool = False
    align_corners: bool = False


ASPP_DILATIONS = (1, 6, 12, 18)
PLUS = {"channels": 512, "fine": 48, "dilations": (1, 12, 24, 36)}
narrowed = partial(bottleneck_aspp, dilations=ASPP_DILATIONS)
dense = partial(ASPP, dilations=ASPP_DILATIONS, separable=False)
interlaced = partial(ISAFusion, side=8)

DECODERS: dict[str, Decoder] = {
    "sep_aspp": Decoder(SepASPP, {"channels": 256, "dilations": ASPP_DILATIONS}),
    "conv1": Decoder(Stacked, {"channels": 256, "fuse": pointwise}),
    "aspp": Decoder(Stacked, {"channels": 256, "fuse": dense}),
    "isa_fusion": Decoder(Stacked, {"channels": 256, "fuse": interlaced}),
    "bottleneck_aspp": Decoder(Stacked, {"channels": 256, "fuse": pointwise, "deepest": narrowed}, deepest=4),
    "segformer": Decoder(SegFormer, {"channels": 768}),
    "segformer_256": Decoder(SegFormer, {"channels": 256}),  # SegFormer's own with MiT-B0 and B1
    "segformer_64": Decoder(SegFormer, {"channels": 64}),  # ours, for two processor cores
    "upernet": Decoder(UPerNet, {"channels": 512, "scales": (1, 2, 3, 6)}, pools=True),
    "upernet_256": Decoder(UPerNet, {"channels": 256, "scales": (1, 2, 3, 6)}, pools=True),
    "deeplab_v2_reduced": Decoder(DilatedSum, {"dilations": (6, 12)}, dropout=False),
    "deeplab_v3_plus": Decoder(DeepLabV3Plus, PLUS),
    "deeplab_v3_plus_enlarged": Decoder(DeepLabV3Plus, PLUS, deepest=8),
    "danet": Decoder(DANet, {"channels": 512, "inner": 64}, heads=("main", "pam", "cam")),
    "isanet": Decoder(ISANet, {"channels": 512, "inner": 256, "side": 8}),
    "refinenet": Decoder(RefineNet, {"channels": 256}, align_corners=True),
}


class EncoderDecoder(Network):
    """A row of ENCODERS, a row of DECODERS. Images of any size, from the smallest that the encoder takes.

    encoder: a row of ENCODERS. It sees images on its grid: if its row has a `multiple`, they are resized to it first.
    decoder: a row of DECODERS, with the channels and dilations it was published with.
    pyramid: a row of PYRAMIDS, for an encoder of one map.
    weights: where the encoder starts from: "scratch", "imagenet", a name on the Hugging Face hub, a file or a folder
    (see networks/weights/load.py); `origin` says what was made of it.
    norm: of an encoder with batch norm: "trained" (also if it is left out), or "frozen": it keeps the statistics that
    it started with.
    dropout: of the decoder, for all that have it. drop_path: of the last block, for MiT.
    freeze: true, or the number of the encoder's first blocks that do not learn, nor does its stem.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        encoder: str,
        decoder: str,
        weights: str,
        dropout: float | None = None,
        drop_path: float | None = None,
        pyramid: str | None = None,
        norm: Norm | None = None,
        freeze: bool | int = False,
    ):
        super().__init__()
        kind = encoder_row(encoder)
        if decoder not in DECODERS:
            raise RecipeError(f"network.decoder: unknown decoder {decoder!r}{nearest(decoder, DECODERS)}")
        row = DECODERS[decoder]
        check_rate("dropout", dropout, row.dropout, f"decoder {decoder}")
        check_rate("drop_path", drop_path, kind.drop_path, f"encoder {encoder}")
        check_pyramid(pyramid, kind.single, encoder)
        if norm is not None and not kind.batch_norm:
            raise RecipeError(f"network.norm: {norm} has no effect, encoder {encoder} has no batch norm; remove it")
        self.class_names = tuple(class_names)
        self.fill = kind.normalisation.mean
        self.heads = row.heads
        self.align_corners = row.align_corners
        self.encoder = kind.build(encoder, **({"drop_path": drop_path} if kind.drop_path else {}))
        self.pyramid = None if pyramid is None else PYRAMIDS[pyramid](*kind.channels)
        self.stride = self.encoder.stride * (1 if self.pyramid is None else 2)
        self.smallest, self.multiple = kind.smallest, kind.multiple
        self.enlarge = self.stride // row.deepest if row.deepest else 1
        self.pools = row.pools or kind.pools
        settings = {**row.settings, "dropout": dropout} if row.dropout else row.settings
        channels = self.encoder.channels if self.pyramid is None else self.pyramid.channels
        self.decoder = row.build(channels, self.classes, **settings)
        # In the order that the encoder has its channels in.
        self.backwards = kind.normalisation.order == "BGR"
        for name in ("mean", "deviation"):
            colour = torch.tensor(getattr(kind.normalisation, name))
            self.register_buffer(name, (colour.flip(0) if self.backwards else colour).view(3, 1, 1))
        self.register_load_state_dict_post_hook(_follow_mean)
        self.origin = load_encoder_weights(self.encoder, weights)
        self.encoder.batch_norm = norm or "trained"
        self.encoder.freeze(freeze)
        # Faster for convolutions; of MiT's layers those that like it bring it about themselves.
        self.layout = torch.channels_last if kind.channels_last else torch.contiguous_format
        lay_out(self, self.layout)

    @property
    def least_images(self) -> int:
        return 2 if self.pools else 1

    def features(self, image: Tensor) -> list[Tensor]:
        """Four maps, the last one enlarged where the decoder's row says so, as the feature distance sees it too."""
        refuse_smaller(image, self.smallest, f"encoder_decoder with encoder {self.encoder.name}")
        if self.training and len(image) < self.least_images:
            raise RecipeError(
                "data.batch: 1 is too few: this network has batch norm after pooling to one cell, which has nothing to "
                "compare in one image; set at least 2, or another network.decoder or network.encoder"
            )
        image = on_grid(image.flip(1) if self.backwards else image, self.multiple)
        normalised = ((image - self.mean) / self.deviation).contiguous(memory_format=self.layout)
        levels = self.encoder(normalised)
        return self.enlarged(levels if self.pyramid is None else self.pyramid(levels))

    def enlarged(self, levels: Sequence[Tensor]) -> list[Tensor]:
        *finer, deepest = levels
        if self.enlarge > 1:
            deepest = upsample(deepest, [self.enlarge * side for side in deepest.shape[-2:]])
        return [*finer, deepest]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        return self.decoder(features)

    def forward(self, image: Tensor) -> Output:
        features = self.features(image)
        cells = self.decoder.each(features) if isinstance(self.decoder, Headed) else {"main": self.decode(features)}
        heads = {head: Head(self.upsampled(logits, image), cells=logits) for head, logits in cells.items()}
        return Output(heads, features)

    def infer(self, image: Tensor) -> Tensor:
        return self.upsampled(self.decode(self.features(image)), image)

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At the image's size already: mmsegmentation upsamples twice, to the input's size and then to the label's."""
        return self.infer(image)

    def upsampled(self, logits: Tensor, image: Tensor) -> Tensor:
        # In the network's own type: under autocast the decoder's is bfloat16, too coarse to interpolate in.
        logits = logits.to(self.mean.dtype)
        return F.interpolate(logits, image.shape[-2:], mode="bilinear", align_corners=self.align_corners)

    @property
    def any_size(self) -> bool:
        return self.encoder.any_size

    def blocks(self) -> list[nn.Module]:
        return self.encoder.blocks()

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """encoder: all but its layer norms; norm: those; head: decoder and pyramid, batch norm included."""
        return learning_groups(self.encoder, [self.decoder] if self.pyramid is None else [self.pyramid, self.decoder])

    def layers(self) -> list[list[nn.Parameter]]:
        return learning_layers(self.encoder)


def _follow_mean(network: nn.Module, _: object) -> None:
    """What a network sees as zero is the mean that its weights came with, where that is not its encoder's own."""
    assert isinstance(network, EncoderDecoder)
    red, green, blue = (network.mean.flip(0) if network.backwards else network.mean).flatten().tolist()
    if any(abs(own - loaded) > 1e-3 for own, loaded in zip(network.fill, (red, green, blue), strict=True)):
        network.fill = (red, green, blue)


def check_rate(key: str, rate: float | None, has: bool, part: str) -> None:
    """RecipeError unless a rate in [0, 1) is given to a part that has it, and none to one that has not."""
    if rate is None and has:
        raise RecipeError(f"network.{key}: missing; {part} needs it, a number in [0, 1)")
    if rate is not None and not has:
        raise RecipeError(f"network.{key}: {rate} has no effect, {part} has none; remove it")
    if rate is not None and not 0 <= rate < 1:
        raise RecipeError(f"network.{key}: {rate} is not in [0, 1)")


def check_pyramid(pyramid: str | None, single: bool, encoder: str) -> None:
    """RecipeError unless an encoder of one map has a row of PYRAMIDS, and no other has one."""
    if single and pyramid is None:
        known = ", ".join(PYRAMIDS)
        raise RecipeError(f"network.pyramid: missing; encoder {encoder} has one map, of which it makes four: {known}")
    if not single and pyramid is not None:
        raise RecipeError(f"network.pyramid: {pyramid} has no effect, encoder {encoder} has several maps; remove it")
    if pyramid is not None and pyramid not in PYRAMIDS:
        raise RecipeError(f"network.pyramid: unknown pyramid {pyramid!r}{nearest(pyramid, PYRAMIDS)}")
