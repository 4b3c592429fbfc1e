"""Batch norm with the statistics of another domain, in the network as it is: what a domain's images alone are worth.

AdaBN (Li, Wang, Shi, Liu and Hou, "Revisiting Batch Normalization For Practical Domain Adaptation", 2016, algorithm 1):
the running mean and variance of each batch norm become those of the target's images. Nothing is learnt, no label is
read. So it is the yardstick beside every gain of adaptation. `exact_statistics` of a recipe does the same after the
last step, of source and target: running means over a few crops are noisy (Wu and Johnson, "Rethinking 'Batch' in
BatchNorm", 2021, sec. 3: PreciseBN).

Where we part from the paper: it replaces the statistics of all batch norms; here those that training left alone
(`network.norm: frozen`, `network.freeze`) are left alone, unless they are named.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segda.data.sets.dataset import DataSet
from segda.errors import DataError, RecipeError
from segda.evaluation.inference import cut_into, in_boxes, places, sizes_scaled
from segda.evaluation.look import Eye, Sight, look, resting
from segda.evaluation.protocol import Statistics
from segda.networks.network import Network
from segda.scene import Scene, stack

BATCH = 8
"""So many images are normalised together, no more."""


class Moments:
    """The mean and the variance of each channel, in float64, of all values that were added.

    mean = sum x / n, variance = sum (x - mean)^2 / n. Values come in parts; k of mean m and variance v make

        d = m - mean;  squares += k v + d^2 n k / (n + k);  mean += d k / (n + k);  n += k

    with squares = n variance (Chan, Golub and LeVeque, 1979; AdaBN's equation 2, which has the same variance): how far
    the means of the parts are apart counts, too.
    """

    def __init__(self, channels: int):
        self.count = 0
        self.mean = torch.zeros(channels, dtype=torch.float64)
        self.squares = torch.zeros(channels, dtype=torch.float64)

    @property
    def variance(self) -> Tensor:
        """(C,); NaN where nothing was added."""
        return self.squares / self.count

    def begin(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """As if so many values of that mean and variance had been added; both (C,)."""
        self.count, self.mean = count, mean.cpu().double()
        self.squares = variance.cpu().double() * count

    def add(self, values: Tensor) -> None:
        """(B, C, ...) of any float type; the moments of these alone are taken in float32, as batch norm does."""
        over = [0, *range(2, values.ndim)]
        # First to the processor: not every accelerator has float64.
        variance, mean = (part.cpu().double() for part in torch.var_mean(values.float(), over, correction=0))
        count = values.numel() // values.shape[1]
        apart, total = mean - self.mean, self.count + count
        self.squares += count * variance + apart.square() * (self.count * count / total)
        self.mean += apart * (count / total)
        self.count = total


def adopt_statistics(
    eye: Eye, images: DataSet, norms: Sequence[_BatchNorm] | None = None, title: str = ""
) -> Statistics:
    """Replaces the statistics of a network's batch norms by those of a data set's images, see `adopt_exact`."""
    reached = adopt_exact(eye, [images], norms, title)
    return Statistics(images.spec, len(images), reached, len(norms_of(eye.network)))


def adopt_exact(eye: Eye, sets: Sequence[DataSet], norms: Sequence[_BatchNorm] | None = None, title: str = "") -> int:
    """Replaces the running mean and variance of a network's batch norms by those of all images of some data sets, and
    returns how many batch norms that are.

    norms: which; None: all that learn statistics in training (see `learning_norms`). Of those, one that no image
    reaches keeps what it has, such as a batch norm of a head that is for training alone.

    A batch norm sees values x of (B, C, h, w) maps, of all images and all views that the evaluation takes of one
    (`eye.settings`: box, windows, sizes, mirrored). Of each channel, over all of them,

        running_mean = sum x / n,  running_var = sum (x - running_mean)^2 / n

    is what is stored, see Moments. What reaches a batch norm depends on those before it. The paper leaves open by what
    these normalise meanwhile: here by the mean and variance of the batch, as in training, in one pass over the images.
    Batches hold BATCH images or fewer, of one set and one size, see `batches`. So the result does not depend on them
    where no such batch norm follows another; if one batch holds all images, it is exact at every depth: in the network
    that comes out each batch norm's values have its running mean and variance.

    No label is read, no random number drawn, nothing but those buffers changed, and in case of an error not even they.
    Of several processes, each that calls this sees all images and gets the same. RecipeError for a network without such
    batch norms, DataError for images that do not do.
    """
    network, settings = eye.network, eye.settings
    norms = learning_norms(network) if norms is None else norms
    found = []
    for images in sets:
        together = batches([tuple(sizes_scaled(images.size(i), settings)) for i in range(len(images))])
        if min(map(len, together), default=0) < network.least_images:
            raise DataError(
                f"{images.spec}: a batch of one image is too few for statistics: this network has batch norm after "
                "pooling to one cell, which has nothing to compare in one image; choose data with two images or more "
                "of each size"
            )
        found.append((images, together))

    def boxed(sight: Sight) -> list[Tensor]:
        return in_boxes(sight.scene.image, settings)

    # Not split: to add up what the processes found would depend on their number, in the last bit.
    with resting([network]), _watched(norms) as moments:
        for images, together in found:
            order = [i for batch in together for i in batch]
            shown = look([], images, boxed, title=title or f"{images.spec} statistics", indices=order, split=False)
            for batch in together:
                for scale in zip(*islice(shown, len(batch)), strict=True):
                    _pass(eye, stack([Scene(image) for image in scale]).to(eye.device).image)
    reached = {norm: seen for norm, seen in moments.items() if seen.count}
    for norm, seen in reached.items():
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.copy_(seen.mean)
        norm.running_var.copy_(seen.variance)
    return len(reached)


def norms_of(network: Network) -> list[_BatchNorm]:
    """All batch norms that keep statistics."""
    return [one for one in network.modules() if isinstance(one, _BatchNorm) and one.track_running_stats]


def learning_norms(
    network: Network, name: str = "the network", way: str = "leave --statistics out"
) -> list[_BatchNorm]:
    """Those whose statistics follow the images in training; RecipeError, with that name and way out, where there are
    none.
    """
    with resting([network]):
        network.train()  # an encoder keeps those in eval mode that are frozen
        found = [norm for norm in norms_of(network) if norm.training]
    if not found:
        raise RecipeError(
            f"{name} has no batch norm that learns statistics in training: there are none to replace; {way}"
        )
    return found


def batches(sizes: Sequence[Hashable], most: int = BATCH) -> list[list[int]]:
    """Images, by number, in as few batches as can be, each of no more than `most` images of one size.

    Of n batches of a size each has every n-th image: neighbours, as frames of one film, say little of a domain.
    """
    alike: dict[Hashable, list[int]] = {}
    for i, size in enumerate(sizes):
        alike.setdefault(size, []).append(i)
    found = []
    for images in alike.values():
        count = -(-len(images) // most)
        found += [images[k::count] for k in range(count)]
    return found


@torch.no_grad()
def _pass(eye: Eye, seen: Tensor) -> None:
    """(B, 3, h, w) through the network in all views of one scale."""
    settings = eye.settings
    for view in (seen, seen.flip(-1)) if settings.flip else (seen,):
        with eye.autocast:
            height, width = view.shape[2:]
            if (cut := cut_into((height, width), settings)) is not None:
                for here in places((height, width), *cut):
                    eye.network.infer(view[here])
            else:
                eye.network.low_res_logits(view)


@contextmanager
def _watched(norms: Sequence[_BatchNorm]) -> Iterator[dict[_BatchNorm, Moments]]:
    """Inside, batch norms normalise by the batch's own statistics and keep theirs; the moments of what they see."""
    moments = {norm: Moments(norm.num_features) for norm in norms}

    def watch(norm: _BatchNorm, given: tuple[Tensor]) -> None:
        moments[norm].add(given[0])

    hooks = [norm.register_forward_pre_hook(watch) for norm in norms]
    try:
        for norm in norms:
            # In training mode also for convolutions that take a resting batch norm in, see EfficientNet-Lite.
            norm.training, norm.track_running_stats = True, False
        yield moments
    finally:
        for norm, hook in zip(norms, hooks, strict=True):
            hook.remove()
            norm.track_running_stats = True
