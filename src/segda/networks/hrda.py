"""HRDA: one network looks at an image twice, at a context of low and a detail of high resolution (Hoyer et al., ECCV
2022, sec. 3).

The context is the whole image, made smaller; the detail is a random box of it in training, and all of it, window by
window, afterwards. An attention of each class weighs the two, cell by cell. As in the authors' code (lhoyer/HRDA
`hrda_encoder_decoder.py`, `hrda_head.py`):

- one box is drawn for the whole step, at corners on a grid, of which the last place is never drawn;
- outside the box the attention is 0 before it is enlarged, so that it fades at the border;
- context times (1 - attention) and attention are enlarged one without the other;
- the decoder sees context and detail one after the other, each with batch statistics of its own, and windows together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.errors import DataError, RecipeError, nearest
from segda.networks.decoders.daformer import upsample
from segda.networks.encoder_decoder import DECODERS, check_rate
from segda.networks.network import Head, Network, Output
from segda.scene import Box, crop, windows

Size = tuple[int, int]
"""height, width in pixels."""

ATTENTIONS = tuple(name for name, row in DECODERS.items() if row.heads == ("main",) and row.deepest is None)
"""The rows of DECODERS that may be the attention's head."""


class Maps(NamedTuple):
    """What a network inside makes of a small image: its maps, its logits, pixels a side of a cell of these."""

    features: list[Tensor]
    logits: Tensor
    cell: int


class HRDA(Network):
    """over: any network whose logits have cells of whole pixels. Images of any size, from the smallest of which the
    network inside takes the context; they are padded to multiples of `unit`, 8 pixels as published.

    box: (height, width) of the detail in pixels. grid: its corners are multiples of it.
    context_scale: of the context, at most 1. detail_weight, context_weight: shares of the loss of the detail's logits
    and of the context's times (1 - attention); the fused ones have the rest.
    attention: a row of DECODERS for the head of the attention, or the attention itself, a number. attention_dropout: of
    that head, if it has any. attention_by_class: one attention a class, or one for all.
    overlap: windows begin at every half of the box, not at every box.
    blurred_detail: the detail is halved and enlarged again, so that it sees no more than the context: an experiment
    that asks what high resolution gives.
    held: which maps the feature distance holds: of the context, as published, or of context and detail, where the box
    is as large as the images that it is trained on (lhoyer/HRDA, `feature_scale: all` of its experiments).
    window_batch: so many windows at most go through the encoder at once, to save memory; null: all of a batch. The
    logits do not depend on it: where batch norm is live, it sees all of them together nevertheless.
    """

    attention: nn.Module | float

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        over: Network,
        box: Size,
        grid: int,
        context_scale: float,
        detail_weight: float,
        context_weight: float = 0.0,
        attention: float | str,
        attention_dropout: float | None = None,
        attention_by_class: bool = True,
        overlap: bool = True,
        blurred_detail: bool = False,
        held: Literal["context", "both"] = "context",
        window_batch: int | None = None,
    ):
        super().__init__()
        if min(detail_weight, context_weight) < 0 or detail_weight + context_weight >= 1:
            raise RecipeError(
                f"network: detail_weight {detail_weight:g} and context_weight {context_weight:g} are shares of the "
                "loss; give numbers from 0 with a sum below 1"
            )
        if not 0 < context_scale <= 1:
            raise RecipeError(f"network.context_scale: {context_scale:g} is not in (0, 1]")
        for key, number in (("grid", grid), ("window_batch", window_batch)):
            if number is not None and number < 1:
                raise RecipeError(f"network.{key}: {number} is below 1")
        self.class_names = tuple(class_names)
        self.over = over
        maps = maps_of(over)
        self.cell = maps.cell
        self.context_scale = context_scale
        self.unit = unit_of(self.cell, context_scale)
        least = self.cell * (2 if overlap else 1)
        if min(box) < 1 or any(side % least for side in box):
            raise RecipeError(f"network.box: {list(box)} is not in whole cells; give multiples of {least} pixels")
        self.box, self.grid = (box[0], box[1]), grid
        self.stride = round(over.stride / context_scale)
        self.fill, self.align_corners = over.fill, False
        self.origin = over.origin
        self.weight_of = {"main": 1 - detail_weight - context_weight, "detail": detail_weight}
        if context_weight:
            self.weight_of["context"] = context_weight
        self.heads = tuple(self.weight_of)
        self.window_stride = (box[0] // 2, box[1] // 2) if overlap else self.box
        self.window_batch = window_batch
        self.blurred_detail = blurred_detail
        self.holds_both = held == "both"
        if isinstance(attention, str):
            outputs = self.classes if attention_by_class else 1
            self.attention = attention_head(attention, maps, outputs, attention_dropout)
        else:
            if not 0 <= attention <= 1:
                raise RecipeError(f"network.attention: {attention:g} is not in [0, 1]")
            if attention_dropout is not None:
                raise RecipeError("network.attention_dropout has no effect with a fixed attention; remove it")
            self.attention = float(attention)

    @property
    def any_size(self) -> bool:
        """No: how many windows there are depends on it."""
        return False

    def features(self, image: Tensor) -> list[Tensor]:
        """Of the context."""
        height, width = image.shape[-2:]
        try:
            return self.over.features(resized(self.padded(image), self.context_scale))
        except DataError as error:
            raise DataError(f"hrda's context of {height} x {width} pixels: {error}") from error

    def held(self, image: Tensor) -> list[Tensor]:
        """The last map of the context, and with `held: both` that of the detail, which is then the whole image."""
        context = self.features(image)[-1]
        if not self.holds_both:
            return [context]
        size = (image.shape[-2], image.shape[-1])
        if size != self.box:
            raise RecipeError(
                f"network.held: both needs a box as large as the images (got {list(self.box)} and {list(size)}); set "
                "network.box and the crops alike"
            )
        return [context, self.over.features(self.sharp(image))[-1]]

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The context's own logits."""
        return self.over.decode(features)

    def forward(self, image: Tensor) -> Output:
        height, width = image.shape[-2:]
        features = self.features(image)
        box = self.draw((height, width))
        image = self.padded(image)
        size = (image.shape[-2], image.shape[-1])
        detail_features = self.over.features(crop(self.sharp(image), box))
        context, detail = self.decode(features), self.over.decode(detail_features)
        attention = self.attention_of(features, context) * self.inside(context, box)
        context = ((1 - attention) * context).float()
        fused = self.fused(context, attention, detail, box, size)
        logits = {
            "main": upsample(fused, size)[..., :height, :width],
            "detail": upsample(detail.float(), box[2:]),
            "context": upsample(context, size)[..., :height, :width],
        }
        heads = {
            name: Head(logits[name], weight, box if name == "detail" else None)
            for name, weight in self.weight_of.items()
        }
        return Output(heads, features, [features[-1], detail_features[-1]] if self.holds_both else ())

    def infer(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        features = self.features(image)
        image = self.padded(image)
        size = (image.shape[-2], image.shape[-1])
        context, detail = self.decode(features), self.whole_detail(image)
        attention = self.attention_of(features, context)
        context = ((1 - attention) * context).float()
        fused = self.fused(context, attention, detail, (0, 0, *size), size)
        return upsample(fused, size)[..., :height, :width]

    def low_res_logits(self, image: Tensor) -> Tensor:
        """At the image's size already: mmsegmentation upsamples twice, to the input's size and then to the label's."""
        return self.infer(image)

    def attention_of(self, features: Sequence[Tensor], context: Tensor) -> Tensor:
        """(B, C or 1, h, w) in [0, 1] at the context's cells: how much the detail counts."""
        if isinstance(self.attention, float):
            return torch.full_like(context[:, :1], self.attention)
        return self.attention(features).sigmoid()

    def draw(self, size: Size) -> Box:
        """The box of a step, the same in all its shares: their random states are alike (networks/dropout.py)."""
        return box_in(size, self.box, self.grid, lambda count: int(torch.randint(count, ())))

    def inside(self, context: Tensor, box: Box) -> Tensor:
        """(h, w): 1 at the context's cells inside the box, which is cut to whole cells, else 0."""
        mask = torch.zeros_like(context[0, 0])
        mask[self.cells(box, self.context_scale)] = 1
        return mask

    def cells(self, box: Box, scale: float) -> tuple[slice, slice]:
        """Where a box of the image lies in its cells at a scale, cut to whole cells."""
        top, left, height, width = (side * scale / self.cell for side in box)
        return slice(int(top), int(top + height)), slice(int(left), int(left + width))

    def fused(self, context: Tensor, attention: Tensor, detail: Tensor, box: Box, size: Size) -> Tensor:
        """The sum at the cells of an image of that size. context: times (1 - attention) already."""
        cells = (size[0] // self.cell, size[1] // self.cell)
        around = upsample(context, cells)
        rows, columns = self.cells(box, 1)
        placed = around.new_zeros(around.shape)
        placed[..., rows, columns] = detail.float()
        return upsample(attention.float(), cells) * placed + around

    def sharp(self, image: Tensor) -> Tensor:
        """The image as the detail sees it."""
        if not self.blurred_detail:
            return image
        return F.interpolate(resized(image, 0.5), size=image.shape[-2:], mode="bilinear", align_corners=False)

    def padded(self, image: Tensor) -> Tensor:
        """With rows and columns at the end, of what the network sees as zero, to multiples of `unit`."""
        rest = [-side % self.unit for side in image.shape[-2:]]
        if not any(rest):
            return image
        fill = torch.tensor(self.fill, dtype=image.dtype, device=image.device).view(3, 1, 1)
        return F.pad(image - fill, (0, rest[1], 0, rest[0])) + fill

    def whole_detail(self, image: Tensor) -> Tensor:
        """The detail's logits of all of an image, at its cells: the mean over the windows that see a cell."""
        batch, size = image.shape[0], image.shape[-2:]
        places = [
            (top, left, min(self.box[0], size[0]), min(self.box[1], size[1]))
            for top in windows(size[0], self.box[0], self.window_stride[0])
            for left in windows(size[1], self.box[1], self.window_stride[1])
        ]
        image = self.sharp(image)
        # Window by window, all images of the batch in each.
        crops = torch.cat([crop(image, place) for place in places])
        total = crops.new_zeros(batch, self.classes, *(side // self.cell for side in size), dtype=torch.float32)
        visits = total.new_zeros(total.shape[-2:])
        # No chunk: for a batch of any size ONNX has it as a sequence, which onnxscript cannot fold.
        looked = self.looked_at(crops).float().unflatten(0, (len(places), batch))
        for place, logits in zip(places, looked, strict=True):
            rows, columns = self.cells(place, 1)
            total[..., rows, columns] += logits
            visits[rows, columns] += 1
        return total / visits

    def looked_at(self, crops: Tensor) -> Tensor:
        """Logits of the network inside for many crops, at their cells."""
        if torch.compiler.is_exporting():  # a graph is of any number of images
            return self.over.decode(self.over.features(crops))
        if self.window_batch is None or len(crops) <= self.window_batch or is_live(self.over.blocks()):
            return self.over.decode(self.over.features(crops))
        if is_live([self.over]):
            levels = zip(*(self.over.features(some) for some in crops.split(self.window_batch)), strict=True)
            return self.over.decode([torch.cat(level) for level in levels])
        return torch.cat([self.over.decode(self.over.features(some)) for some in crops.split(self.window_batch)])

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The network's inside; head: with the attention's."""
        groups = self.over.groups()
        own = list(self.attention.parameters()) if isinstance(self.attention, nn.Module) else []
        return groups | {"head": [*groups["head"], *own]}


def attention_head(name: str, maps: Maps, outputs: int, dropout: float | None) -> nn.Module:
    """A row of DECODERS of a network's maps. RecipeError where it has other cells than the network's logits."""
    if name not in ATTENTIONS:
        raise RecipeError(f"network.attention: no head {name!r} for it{nearest(name, ATTENTIONS)}")
    row = DECODERS[name]
    check_rate("attention_dropout", dropout, row.dropout, f"decoder {name}")
    settings = {**row.settings, "dropout": dropout} if row.dropout else row.settings
    head = row.build([level.shape[1] for level in maps.features], outputs, **settings)
    with torch.no_grad():
        cells = head.eval()(maps.features).shape[-2:]
    if cells != maps.logits.shape[-2:]:
        raise RecipeError(f"network.attention: {name} has other cells than the decoder of network.over; take its own")
    return head.train()


@torch.no_grad()
def maps_of(network: Network) -> Maps:
    """What the network makes of a small image."""
    side, training = 4 * network.stride, network.training
    network.eval()
    features = network.features(torch.zeros(1, 3, side, side))
    logits = network.decode(features)
    height, width = logits.shape[-2:]
    network.train(training)
    if side % height or height != width or network.align_corners:
        raise RecipeError(
            "network.over: hrda needs a network whose logits have cells of whole pixels; take encoder_decoder or "
            "mit_daformer"
        )
    return Maps(features, logits, side // height)


def unit_of(cell: int, scale: float) -> int:
    """The smallest side of an image that has whole cells, at its own size and at that scale."""
    for side in range(cell, 100 * cell, cell):
        cells = side * scale / cell
        if abs(cells - round(cells)) < 1e-9:
            return side
    raise RecipeError(f"network.context_scale: {scale:g} leaves no whole cells; give a fraction such as 0.5")


def is_live(modules: Sequence[nn.Module]) -> bool:
    """Whether batch norm in them takes the statistics of what it sees."""
    return any(
        isinstance(one, nn.modules.batchnorm._BatchNorm) and one.training for each in modules for one in each.modules()
    )


def box_in(size: Size, box: Size, grid: int, draw: Callable[[int], int]) -> Box:
    """A box inside an image, or as much of it as the image has. draw(n): a whole number from 0 to n - 1.

    The corner is a multiple of the grid, drawn from (margin + 1) // grid places: the last one is never taken
    (lhoyer/HRDA `get_crop_bbox`). Nothing is drawn for an image as large as the box.
    """
    corner = []
    for side, part in zip(size, box, strict=True):
        places = (max(side - part, 0) + 1) // grid if size != box else 0
        corner.append(draw(places) * grid if places else 0)
    return corner[0], corner[1], min(box[0], size[0]), min(box[1], size[1])


def resized(image: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return image
    return F.interpolate(image, scale_factor=scale, mode="bilinear", align_corners=False)
