"""The training stream: draw number -> one scene of each domain, a pure function of (seed, draw number).

So it is the same for any number of workers, and a resumed run goes on where it stopped by starting at its step.

Uniform picks go through all images in a new order each epoch; in a union with weights, a part is drawn by them first,
and goes through its own. Rare-class picks of the source (Hoyer et al., DAFormer,
CVPR 2022, sec. 3.3) draw a class first, rare ones more often, then an image that has enough of it, then look for a crop
that still has. Unlike the authors' code, an image is decoded once however many crops are tried, and a class that no
image has enough of is left out (their code stops). Balanced epochs (balanced.py) have a subset of the source's images
with so many of each class.

The target is always read without its ground truth. It has a label only where a folder of pseudo-labels is given. A
reference comes with its image, brought to the same size, cut out at the same place and mirrored with it; it draws
nothing of its own. Its colours stay as they are, and its labels are never read. A style is a further draw of the
target's images, cut as those are, without labels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from segda.data.labels.pseudo_labels import PseudoLabels
from segda.data.sets.dataset import DataSet, image_weights
from segda.data.stream.augment import (
    IMAGENET_MEAN,
    cut,
    draw_box,
    draw_factor,
    draw_mirrored,
    resize_alongside,
    resize_label,
    resized,
    same_shape,
    scaled_size,
    size_of,
)
from segda.data.stream.balanced import BalancedEpochs, pixel_of_a_class
from segda.data.stream.settings import Augment, Balanced, Of, RareClass
from segda.distributed import group
from segda.errors import DataError, RecipeError, visible
from segda.ground.ignore import IGNORE
from segda.scene import DOMAINS, Box, Scene, crop

log = logging.getLogger(__name__)

Reading = Callable[[int, int], None]
"""Is told the domain and the number of an image before it is read."""

SOURCE, TARGET, REFERENCE, STYLE = 0, 1, 2, 3
"""The domains by number, as DOMAINS names them."""

# With SOURCE and TARGET, which stream of random numbers: default_rng((seed, stream, number)); 2 is a step's.
PART, OTHER, EPOCHS = 3, 4, 5


def class_probabilities(counts: np.ndarray, temperature: float, drawable: np.ndarray | None = None) -> np.ndarray:
    """Probability of drawing each class: softmax((1 - f) / T) with f the class's share of all counted pixels.

    (C,) pixels -> (C,) float64, summing to 1. Zero for a class without pixels or not `drawable` (C,) bool;
    the others keep their ratios.  Hoyer et al. 2022, eq. 6-7.
    """
    counts = np.asarray(counts, np.float64)
    rarity = (1 - counts / counts.sum()) / temperature
    there = counts > 0 if drawable is None else (counts > 0) & drawable
    power = np.zeros_like(rarity)
    power[there] = np.exp(rarity[there] - rarity[there].max())
    return power / power.sum()


@lru_cache(maxsize=8)
def _order(seed: int, stream: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, stream, epoch, count)).permutation(count)


@dataclass(frozen=True)
class References:
    """The references of a domain's images.

    of: whose. partner: (N,) the number in `data` of each image's reference, see data/sets/pairs.py.
    """

    data: DataSet
    of: Of
    partner: np.ndarray


class Draw(NamedTuple):
    """One scene of each domain; None where there is no such domain."""

    source: Scene | None
    target: Scene
    reference: Scene | None
    style: Scene | None = None


class Stream(Dataset):
    """stream[n]: the n-th draw, scenes cropped and ready to stack: the source with its label, the others without.

    source: None where there is none; it comes with its `source_augment`.
    statistics: (N, C + 1) of `class_statistics` of the source, needed with `rare` and `balanced`.
    fill: RGB in [0, 1] of padding, the network's own.
    target_labels: pseudo-labels of the target's images; the target scene has them as its label. Its crops are the same
    with and without.
    references: of the target's images or the source's. Their crops are the same with and without.
    style: whether each draw has a further scene of the target. The others are the same with and without.
    DataError if a source image lacks its label (or the reverse); RecipeError for a setting that cannot have an effect.
    """

    def __init__(
        self,
        source: DataSet | None,
        target: DataSet,
        seed: int,
        source_augment: Augment | None,
        target_augment: Augment,
        rare: RareClass | None = None,
        statistics: np.ndarray | None = None,
        fill: tuple[float, float, float] = IMAGENET_MEAN,
        target_labels: PseudoLabels | None = None,
        references: References | None = None,
        style: bool = False,
        balanced: Balanced | None = None,
    ):
        if target_augment.max_class_share is not None:
            raise RecipeError("data.target.augment.max_class_share: target labels are never read; set it to null there")
        if source is not None:
            source.check_pairs()
        self.source, self.target, self.seed, self.fill = source, target, seed, fill
        self.source_augment, self.target_augment, self.rare = source_augment, target_augment, rare
        self.target_labels, self.references, self.style = target_labels, references, style
        if rare is not None:
            assert statistics is not None, "rare-class sampling needs the source's class statistics"
            self._count_classes(rare, statistics)
        self.balanced, self.epochs = balanced, None
        if balanced is not None:
            assert statistics is not None, "balanced epochs need the source's class statistics"
            if self._known(SOURCE).shares is not None:
                raise RecipeError(
                    "data.source.balanced: chooses among all images alike; leave the weights of data.source.set out, "
                    "or set it to null"
                )
            self.epochs = BalancedEpochs(statistics[:, :-1] > 0, balanced, (seed, EPOCHS))

    def _count_classes(self, rare: RareClass, statistics: np.ndarray) -> None:
        """Which images serve each class, and how often each class is drawn."""
        source = self._known(SOURCE)
        classes = source.space.classes
        assert statistics.shape == (len(source), len(classes) + 1)
        enough: np.ndarray = statistics[:, :-1] > np.reshape(rare.least(statistics.sum(1)), (-1, 1))
        self.images_of = [np.flatnonzero(column) for column in enough.T]
        if not enough.any():
            least = f"{rare.min_pixels}" if rare.min_share is None else f"{rare.min_share:.2%} of its"
            raise DataError(
                f"{source.spec}: no image has more than {least} pixels of any class; lower "
                "data.source.rare_class.min_pixels or min_share"
            )
        self.weights = None if source.shares is None else image_weights(source)
        totals = statistics[:, :-1].sum(0) if self.weights is None else self.weights @ statistics[:, :-1]
        served = np.array([len(images) > 0 for images in self.images_of])
        self.probability = class_probabilities(totals, rare.temperature, served)
        left_out = [name for name, images in zip(classes, self.images_of, strict=True) if not len(images)]
        if left_out and group.rank() == 0:
            names = ", ".join(left_out)
            log.warning("%s: no image has enough of %s to be drawn for it", source.spec, names)

    def __getitem__(self, n: int) -> Draw:
        drawn: dict[int, Scene] = {}
        for domain in self.drawn:
            drawn |= self.scenes(domain, n)
        return Draw(drawn.get(SOURCE), drawn[TARGET], drawn.get(REFERENCE), drawn.get(STYLE))

    @property
    def drawn(self) -> tuple[int, ...]:
        """The domains that are drawn from; a reference comes with its image."""
        source, style = () if self.source is None else (SOURCE,), (STYLE,) if self.style else ()
        return (*source, TARGET, *style)

    def scenes(self, domain: int, n: int, reading: Reading = lambda domain, i: None) -> dict[int, Scene]:
        """The n-th scene of SOURCE, TARGET or STYLE, and its reference where it has one."""
        return self._source(n, reading) if domain == SOURCE else self._target(domain, n, reading)

    def file(self, domain: int, i: int) -> str:
        """Where image i of a domain is."""
        return visible(self._known(domain).place(i))

    def _known(self, domain: int) -> DataSet:
        """The data set of a domain that is there."""
        references = None if self.references is None else self.references.data
        found = (self.source, self.target, references, self.target)[domain]
        assert found is not None
        return found

    def _target(self, domain: int, n: int, reading: Reading) -> dict[int, Scene]:
        """The n-th scene of TARGET, with its pseudo-label where there are any, or of STYLE."""
        stream = {TARGET: TARGET, STYLE: OTHER}[domain]
        rng = np.random.default_rng((self.seed, stream, n))
        i, settings = self._next(self.target, stream, n), self.target_augment
        reading(domain, i)
        scene = self.target.read(i, label=False)
        size = size_of(scene)
        factor = draw_factor(settings, rng, size)
        scene = resized(scene, settings, factor)
        if self.target_labels is not None and domain == TARGET:
            label = torch.full(size_of(scene), IGNORE, dtype=torch.uint8)
            inner = scaled_size(size, settings.resize, settings.shape, factor)  # smaller where the image was filled up
            label[: inner[0], : inner[1]] = resize_label(self.target_labels.read(i, size), inner, settings.kernel)
            scene = scene.replace(label=label)
        return self._cut(domain, i, scene, size, factor, draw_box(scene, settings, rng), settings, rng, reading)

    def _source(self, n: int, reading: Reading) -> dict[int, Scene]:
        source, settings = self._known(SOURCE), self.source_augment
        assert settings is not None
        rng = np.random.default_rng((self.seed, SOURCE, n))
        rare = self.rare
        wanted, i = self.pick(rng) if rare is not None else (IGNORE, self._in_turn(n))
        reading(SOURCE, i)
        scene = source.read(i, label=True)
        size = size_of(scene)
        factor = draw_factor(settings, rng, size)
        scene = resized(scene, settings, factor)
        assert scene.label is not None
        by_class = self.balanced is not None and self.balanced.place_by_class
        box = draw_box(scene, settings, rng, pixel_of_a_class(scene.label, rng) if by_class else None)
        if rare is not None:
            for _ in range(rare.retries):
                label = crop(scene.label, box)
                if int((label == wanted).sum()) > rare.crop_ratio * rare.least(label.numel()):
                    break
                box = draw_box(scene, settings, rng)
        return self._cut(SOURCE, i, scene, size, factor, box, settings, rng, reading)

    def _cut(
        self,
        domain: int,
        i: int,
        scene: Scene,
        size: tuple[int, int],
        factor: float,
        box: Box,
        settings: Augment,
        rng: np.random.Generator,
        reading: Reading,
    ) -> dict[int, Scene]:
        """The box of a domain's resized image i, and that of its reference. size: (height, width) that it was of.
        factor: of the size that both are brought to.
        """
        mirrored = draw_mirrored(settings, rng)
        made = {domain: cut(scene, box, mirrored, settings, self.fill, rng)}
        references = self.references
        if references is not None and references.of == DOMAINS[domain]:
            j = int(references.partner[i])
            reading(REFERENCE, j)
            reference = references.data.read(j, label=False)
            self._refuse_other_shape(domain, i, size, j, size_of(reference))
            reference = resize_alongside(reference, size, settings, factor)
            made[REFERENCE] = cut(reference, box, mirrored, settings, self.fill, None)
        return made

    def _refuse_other_shape(self, domain: int, i: int, size: tuple[int, int], j: int, other: tuple[int, int]) -> None:
        """DataError where an image and its reference cannot be cut alike."""
        if same_shape(size, other):
            return
        (height, width), (tall, wide) = size, other
        raise DataError(
            f"{self.file(REFERENCE, j)} is {wide}x{tall}, of another shape than the {width}x{height} of "
            f"{self.file(domain, i)}, whose reference it is; give references of the same shape, or "
            "other pairs"
        )

    def pick(self, rng: np.random.Generator) -> tuple[int, int]:
        """A class by its probability, and one of the images that have enough of it."""
        wanted = int(rng.choice(len(self.probability), p=self.probability))
        images = self.images_of[wanted]
        if self.weights is None:
            return wanted, int(rng.choice(images))
        return wanted, int(rng.choice(images, p=self.weights[images] / self.weights[images].sum()))

    def _in_turn(self, n: int) -> int:
        """The image of the source of draw n, where none is chosen by a class of its own."""
        return self._next(self._known(SOURCE), SOURCE, n) if self.epochs is None else self.epochs.image(n)

    def _next(self, data: DataSet, stream: int, n: int) -> int:
        """The image of draw n when all are used once an epoch, each epoch in an order of its own."""
        if data.shares is not None:
            return self._next_of_part(data, stream, n)
        epoch, place = divmod(n, len(data))
        return int(_order(self.seed, stream, epoch, len(data))[place])

    def _next_of_part(self, data: DataSet, stream: int, n: int) -> int:
        """The image of draw n when its part is drawn by the weights first."""
        k = int(np.random.default_rng((self.seed, PART, stream, n)).choice(len(data.parts), p=data.shares))
        # The part's own order at n, though other parts had most draws before: so a draw depends on its number alone.
        return sum(map(len, data.parts[:k])) + self._next(data.parts[k], stream, n)
