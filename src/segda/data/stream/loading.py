"""The batches of a training: draws of the stream (data/stream/stream.py) side by side, read ahead by processes
(data/stream/reader_processes.py), with or without the images that cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass

from segda.data.stream.reader_processes import ImageNumber, Note, Reading, read_ahead
from segda.data.stream.stream import REFERENCE, SOURCE, STYLE, TARGET, Stream
from segda.distributed.shares import Share
from segda.errors import DataError, ImageError, SegdaError
from segda.ground.choices import OnBadImage
from segda.scene import DOMAINS, Batch, Scene, block_of, present, stack

TRIES = 8
"""Other draws that are tried in the place of one whose image cannot be read."""

RESERVED = 1 << 48
"""Numbers from here on are of such other draws: no training is as long."""


@dataclass(frozen=True)
class Skip:
    """An image that was left out: the step (from 0) and draw that were to have it, and why."""

    step: int
    draw: int
    path: str
    reason: str


@dataclass(frozen=True)
class _Made:
    """The draws of a batch by their domains, and the images that they should have had: (draw, file, why not)."""

    scenes: dict[int, Scene]
    left_out: tuple[tuple[int, str, str], ...]

    def pinned(self) -> _Made:
        return _Made({domain: scene.pin_memory() for domain, scene in self.scenes.items()}, self.left_out)


def loader(
    stream: Stream,
    batch: int,
    start: int,
    stop: int,
    workers: int,
    seed: int,
    shares: int = 1,
    own: range = range(1),
    *,
    on_bad_image: OnBadImage = "stop",
    pin: bool = False,
    skipped: Callable[[Skip], None] = lambda skip: None,
) -> Generator[tuple[Batch, ...], None, None]:
    """The batches of steps start .. stop - 1, of each step those with the places `own` among its `shares`.

    Step t has the draws t * shares * batch .. (t + 1) * shares * batch - 1; those of place p are the p-th `batch` of
    them, and each batch says which (`Batch.share`). Neither the number of workers, nor the step it starts
    at, nor one of them that dies changes a batch, and torch's global random state is left alone.

    An error of a draw is raised at the step that would have used it. on_bad_image: with "skip" a draw whose image,
    label or reference is damaged (ImageError), or killed a worker twice, is replaced by another that is as much a
    function of its number, and `skipped` is told before its batch comes; DataError after TRIES that are no better. With
    "stop", RunFailure where an image killed a worker twice.
    pin: batches lie in memory that a cuda device reads by itself. Exhaust it, or close it, to end its workers.
    """

    def first(k: int) -> int:
        """The first draw of the k-th batch from here."""
        step, place = divmod(k, len(own))
        return ((start + step) * shares + own[place]) * batch

    count = (stop - start) * len(own)
    make = _Maker(stream, batch, on_bad_image == "skip")
    made: Generator[_Made | SegdaError, None, None]
    if workers:
        made = read_ahead(make, [first(k) for k in range(count)], workers)
    else:
        made = (make(first(k)) for k in range(count))
    with closing(made):
        for step in range(start, stop):
            micro_batches = []
            for place in own:
                drawn = next(made)
                if isinstance(drawn, SegdaError):
                    raise drawn
                for left_out in drawn.left_out:
                    skipped(Skip(step, *left_out))
                drawn = drawn.pinned() if pin else drawn
                scenes, share = drawn.scenes, Share(seed, step, place * batch, shares)
                source, reference, style = (scenes.get(domain) for domain in (SOURCE, REFERENCE, STYLE))
                micro_batches.append(Batch(source, scenes[TARGET], reference, share, style))
            yield tuple(micro_batches)


@dataclass(frozen=True)
class _Maker:
    """Makes the batch that begins at a draw."""

    stream: Stream
    batch: int
    skip: bool

    def file(self, domain: int, image: int) -> str:
        return self.stream.file(domain, image)

    def __call__(
        self, first: int, refused: frozenset[ImageNumber] = frozenset(), note: Note = lambda _: None
    ) -> _Made | SegdaError:
        """refused: images that are taken for damaged. note: is told before each image is read, and when all are. Errors
        are values: the batches before them come first.
        """
        left_out: list[tuple[int, str, str]] = []
        scenes: dict[int, list[Scene]] = {}
        try:
            for n in range(first, first + self.batch):
                for domain in self.stream.drawn:
                    for each, scene in self._scenes(domain, n, refused, note, left_out).items():
                        scenes.setdefault(each, []).append(scene)
            note(None)
            stacked = {domain: _stacked(DOMAINS[domain], found) for domain, found in scenes.items()}
        except SegdaError as error:
            return error
        return _Made(stacked, tuple(left_out))

    def _scenes(
        self,
        domain: int,
        n: int,
        refused: frozenset[ImageNumber],
        note: Note,
        left_out: list[tuple[int, str, str]],
    ) -> dict[int, Scene]:
        """A domain's scene of draw n and its reference, or of the first of the draws in its place that can be read."""

        def reading(of: int, image: int) -> None:
            if (of, image) in refused:
                path = self.file(of, image)
                raise ImageError(f"{path}: each process that read it died; look at it, or replace it", path)
            note(Reading(n, of, image))

        for number in (n, *range(RESERVED + n * TRIES, RESERVED + (n + 1) * TRIES)):
            try:
                return self.stream.scenes(domain, number, reading)
            except ImageError as error:
                if not self.skip:
                    raise
                left_out.append((n, error.path, str(error)))
        raise DataError(
            f"data.{block_of(DOMAINS[domain])}: {TRIES + 1} images drawn in a row cannot be read, last "
            f"{left_out[-1][1]}: too many are bad for data.on_bad_image: skip; mend the data set, `segda check-data` "
            "finds them"
        )


def refuse_sizes(domain: str, sizes: Iterable[Sequence[int]], of: str) -> None:
    """DataError unless all (height, width) of a domain's images of one batch, or of one step, are the same."""
    found = {f"{width}x{height}" for height, width in sizes}
    if len(found) > 1:
        raise DataError(
            f"{domain} images of one {of} differ in size ({', '.join(sorted(found))}); give "
            f"data.{block_of(domain)}.augment.crop"
        )


def _stacked(domain: str, scenes: Sequence[Scene]) -> Scene:
    refuse_sizes(domain, (scene.image.shape[1:] for scene in scenes), "batch")
    stacked = stack(scenes)
    # Looked for here, since it would cost the training's own process as much.
    return stacked if stacked.label is None else stacked.replace(classes=present(stacked.label))
