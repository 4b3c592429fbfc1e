"""What a long calculation has found of each image's pixels, on disk while it lasts: a label and a score."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from segda.errors import RunError
from segda.ground.atomic import cannot_write
from segda.ground.sealed import SEAL_BYTES, Sealed, check_sealed

BYTES = 5
"""Of each pixel: a label (uint8) and a score (float32)."""


class Scratch:
    """A file for each image in a folder, each whole or not there.

    names: of the images' files; one that no longer fits its image must get another. sizes: (height, width) of labels.
    """

    def __init__(self, folder: Path, names: Sequence[str], sizes: Sequence[tuple[int, int]]):
        self.folder, self.names, self.sizes = folder, names, sizes
        self.checked: set[int] = set()

    def path(self, i: int) -> Path:
        return self.folder / f"{self.names[i]}.part"

    def bytes(self, i: int) -> int:
        return BYTES * self.sizes[i][0] * self.sizes[i][1]

    def has(self, i: int) -> bool:
        try:
            return self.path(i).stat().st_size == self.bytes(i) + SEAL_BYTES
        except FileNotFoundError:
            return False

    def write(self, i: int, label: np.ndarray, score: np.ndarray) -> None:
        """(h, w) uint8 and (h, w) float32 of image i. RunError when the disk is full.

        Not synced, unlike `files.whole`: after a crash of the machine a file that is too short is made again.
        """
        assert label.shape == score.shape == self.sizes[i] and (label.dtype, score.dtype) == (np.uint8, np.float32)
        partial = self.path(i).with_suffix(f".{os.getpid()}.partial")
        try:
            partial.unlink(missing_ok=True)
            with partial.open("wb") as file:
                sealed = Sealed(file)
                sealed.write(np.ascontiguousarray(label).data)
                sealed.write(np.ascontiguousarray(score).data)
                sealed.seal()
            partial.replace(self.path(i))
        except OSError as error:
            raise cannot_write(self.path(i), error) from error
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def read(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        """Label and score of image i, as they were written; RunError where they are not."""
        height, width = size = self.sizes[i]
        path, pixels = self.path(i), height * width
        if i not in self.checked:
            try:
                check_sealed(path)
            except ValueError as error:
                raise RunError(f"{path}: {error}; remove it and repeat the command, which makes it again") from error
            self.checked.add(i)
        content = np.fromfile(path, np.uint8, self.bytes(i))
        return content[:pixels].reshape(size), content[pixels:].view(np.float32).reshape(size)
