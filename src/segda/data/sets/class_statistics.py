"""The pixels of each class in each image of a data set: counted once by several processes, and kept."""

from __future__ import annotations

import hashlib
import io
import logging
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segda.data.sets.dataset import DataSet
from segda.data.sets.specs import file_name
from segda.distributed import group
from segda.errors import DataError, ImageError
from segda.ground.atomic import atomic_write
from segda.ground.pool import Pool
from segda.ground.progress import track
from segda.ground.sealed import Sealed, check_sealed

log = logging.getLogger(__name__)

NOT_COUNTED = -1
SAVE_SECONDS = 30.0

MOST_DAMAGED = 0.25
"""Of a data set's labels: if more cannot be read, something else is wrong than single files."""


@group.joined()
def class_statistics(
    data: DataSet,
    cache: Path | None,
    workers: int | None = None,
    leave_out: bool = False,
) -> np.ndarray:
    """(N, C + 1) int64: pixels of each class, the ignored ones last, in the label of each image.

    Counted by several processes, once: kept in a file of the folder `cache` (if there is one) and counted again when
    label files, labelling or space have changed. An interrupted count goes on where it was. DataError if an image lacks
    its label (or the reverse), or one cannot be read. With `leave_out` a damaged one (ImageError) has no pixels, as no
    other label has, and there is a DataError where more than MOST_DAMAGED of them are.

    Under torchrun each process counts its share, with `workers` of its own (None: its part of the machine's cores), and
    all return the same. The first one keeps the file: meanwhile what it has counted itself, at the end all. So an
    interrupted count goes on without what the others had counted.
    """
    group.all_succeed(data.check_pairs)
    kept = _Kept.of(data, cache)
    shape = len(data), len(data.space.classes) + 1
    known = kept.read(shape)
    if known is None:
        known = np.full(shape, NOT_COUNTED)
    # The first one's word counts: it has the file.
    counts = group.all_reduce_sum(known if group.rank() == 0 else np.zeros(shape, known.dtype))
    if not leave_out:  # as somebody else may have
        counts[damaged(counts)] = NOT_COUNTED
    todo = np.flatnonzero(counts[:, 0] == NOT_COUNTED)
    if not len(todo):
        group.all_succeed(lambda: _tell_damaged(data, counts, leave_out))
        return counts
    own = group.own_share(todo)
    group.all_succeed(lambda: _count(data, own, counts, kept, workers, leave_out))
    found = np.zeros_like(counts)
    found[own] = counts[own]
    counts[todo] = group.all_reduce_sum(found[todo])
    group.on_rank_zero(kept.write, counts)
    group.all_succeed(lambda: _tell_damaged(data, counts, leave_out))
    return counts


def damaged(counts: np.ndarray) -> np.ndarray:
    """The images whose label could not be read and was left out."""
    return np.flatnonzero(counts.sum(1) == 0)


def _tell_damaged(data: DataSet, counts: np.ndarray, leave_out: bool) -> None:
    bad = damaged(counts)
    if not leave_out or not len(bad):
        return
    what = f"{data.spec}: {len(bad)} of {len(data)} labels cannot be read, first {data.label_place(int(bad[0]))}"
    if len(bad) > MOST_DAMAGED * len(data):
        raise DataError(
            f"{what}: too many are bad for data.on_bad_image: skip; mend the data set, `segda check-data` finds them"
        )
    if group.rank() == 0:
        log.warning("%s; rare classes are never drawn from them", what)


def _count(
    data: DataSet,
    images: np.ndarray,
    counts: np.ndarray,
    kept: _Kept,
    workers: int | None,
    leave_out: bool,
) -> None:
    """Fills in the rows of some images, and keeps them now and then."""
    if any(part.at_hand for part in data.parts):
        workers = 0  # scenes that are drawn here are at hand when training asks for them
    saved = time.monotonic()
    jobs = Pool(_Counts(data, images, leave_out), len(images), workers)
    try:
        for i, pixels in zip(images, track(jobs, f"classes of {data.spec}"), strict=True):
            counts[i] = pixels
            if time.monotonic() - saved > SAVE_SECONDS:
                kept.write(counts)
                saved = time.monotonic()
    except KeyboardInterrupt:
        kept.write(counts)
        raise


@dataclass(frozen=True)
class _Counts:
    """The class counts of the n-th label that is still to be counted."""

    data: DataSet
    todo: np.ndarray
    leave_out: bool

    def __call__(self, n: int) -> np.ndarray:
        try:
            return self.data.class_counts(int(self.todo[n]))
        except ImageError:
            if not self.leave_out:
                raise
            return np.zeros(len(self.data.space.classes) + 1, np.int64)


@dataclass(frozen=True)
class _Kept:
    """The file of counts, and what they must be of; no path where none is kept, or by another process."""

    path: Path | None
    fingerprint: str = ""

    @classmethod
    def of(cls, data: DataSet, cache: Path | None) -> _Kept:
        if cache is None or group.rank() != 0:
            return cls(None)
        return cls(cache / f"{file_name(data.spec)}-{data.space.name}.npz", _fingerprint(data))

    def write(self, counts: np.ndarray) -> None:
        if self.path is not None:
            content = io.BytesIO()
            np.savez(content, counts=counts, fingerprint=self.fingerprint)
            with atomic_write(self.path) as partial, partial.open("wb") as file:
                sealed = Sealed(file)
                sealed.write(content.getbuffer())
                sealed.seal()

    def read(self, shape: tuple[int, int]) -> np.ndarray | None:
        """None if there are no counts, they are of other labels, or the file is not as it was written."""
        if self.path is None:
            return None
        try:
            check_sealed(self.path)
            # Opened here: numpy leaves a broken archive open.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
                counts = kept["counts"] if str(kept["fingerprint"]) == self.fingerprint else None
            if counts is not None and (counts.shape != shape or counts.dtype != np.int64 or counts.min() < NOT_COUNTED):
                raise ValueError("it holds other numbers than counts of these labels")
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            log.warning("%s cannot be read (%s); the classes are counted again", self.path, error)
            return None
        return counts


def _fingerprint(data: DataSet) -> str:
    """A hash of what the statistics depend on: the space, each label file's name, size, time and table."""
    digest = hashlib.sha256(f"{data.space.name} {data.space.classes}\n".encode())
    for line in data.label_marks():
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()
