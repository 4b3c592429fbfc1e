"""What networks say of images, gathered for the criteria: each image is seen once, and once mixed with another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from segda.data.stream.augment import resize, resize_label
from segda.evaluation.certainty import labels, surveyed
from segda.evaluation.criteria import CELLS, LAMBDA, Evidence, chosen_pixels
from segda.evaluation.look import Eye, Images, Sight, look
from segda.ground.choices import Weights
from segda.networks.deeplab import Classifier
from segda.networks.network import Network
from segda.scene import Scene


class Mixed(Images):
    """Images by number, and at odd numbers a mix: 2 k is image k of `order`, 2 k + 1 that and the one before it."""

    def __init__(self, images: Images, order: Sequence[int]):
        self.images, self.order = images, order

    def __len__(self) -> int:
        return 2 * len(self.order)

    def read(self, i: int, label: bool = False) -> Scene:
        k, mixed = divmod(i, 2)
        own = self.images.read(self.order[k]).image
        if not mixed:
            return Scene(own)
        height, width = own.shape[1:]
        other = resize(self.images.read(self.order[k - 1]), (width, height), "stretch").image
        return Scene((LAMBDA * own + (1 - LAMBDA) * other).round().to(torch.uint8))


def evidence(eyes: Mapping[Weights, Eye], images: Images, order: Sequence[int], title: str) -> dict[Weights, Evidence]:
    """What each network says of these images and of their mixes; of student and teacher whether they agree."""
    found = {which: Evidence() for which in eyes}
    before: dict[Weights, Tensor] = {}
    latest: dict[Weights, Tensor] = {}
    every = [2 * k + mixed for k in range(len(order)) for mixed in ((0, 1) if k else (0,))]

    def each(sight: Sight) -> None:
        k, mixed = divmod(sight.index, 2)
        if mixed:
            for which, views in zip(eyes, sight.by_eye, strict=True):
                partner = resize_label(before[which].cpu(), sight.size, "bilinear").to(latest[which].device)
                found[which].add_mixed(labels(views, sight.size), latest[which], partner)
            return
        before.update(latest)
        pixels = chosen_pixels(order[k], sight.size[0] * sight.size[1])
        for which, views in zip(eyes, sight.by_eye, strict=True):
            survey = surveyed(views, sight.size, pixels)
            found[which].add(survey)
            latest[which] = survey.label
            if (cells := watched[which].cells()) is not None:
                some = chosen_pixels(order[k], len(cells), max(1, CELLS // len(order)))
                found[which].cells.append(cells[some.to(cells.device)].float().cpu())
        if len(eyes) > 1:
            for one in found.values():
                one.add_agreement(*latest.values())

    with _all_watched({which: eye.network for which, eye in eyes.items()}) as watched:
        for _ in look(list(eyes.values()), Mixed(images, order), each, title=title, indices=every, split=False):
            pass
        for which, one in found.items():
            one.weights = watched[which].weights()
    return found


class LastLayer:
    """The convolution that a network ends with, and what reached it last; None where it ends with none to its classes.

    Of a network that wraps another one, the inner one's.
    """

    def __init__(self, network: Network):
        while network.wrapped():
            network = network.wrapped()[0]
        self.classes = network.classes
        self.layer: nn.Module | None = None
        self.reached: Tensor | None = None
        self.hooks = [
            module.register_forward_hook(self._ran)
            for module in network.modules()
            if isinstance(module, nn.Conv2d | nn.Linear | Classifier)
        ]

    def _ran(self, module: nn.Module, given: tuple[Tensor, ...], _: Tensor) -> None:
        self.layer, self.reached = module, given[0]

    def cells(self) -> Tensor | None:
        """(h w, D) of the last image, or view of it."""
        return None if self.weights() is None or self.reached is None else self.reached[0].flatten(1).T

    def weights(self) -> Tensor | None:
        """(C, D'), a row a class."""
        layer = self.layer
        if isinstance(layer, Classifier):
            layers: list[nn.Conv2d] = layer.convolutions()
        elif isinstance(layer, nn.Conv2d) and layer.out_channels == self.classes and layer.groups == 1:
            layers = [layer]
        else:
            return None
        return torch.cat([one.weight.detach().flatten(1) for one in layers], 1).float().cpu()

    def close(self) -> None:
        for hook in self.hooks:
            hook.remove()


@contextmanager
def _all_watched(networks: Mapping[Weights, Network]) -> Iterator[dict[Weights, LastLayer]]:
    watched = {which: LastLayer(network) for which, network in networks.items()}
    try:
        yield watched
    finally:
        for one in watched.values():
            one.close()
