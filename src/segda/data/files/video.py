"""Frames of videos and cameras, and videos written, by OpenCV's own FFmpeg."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from segda.data.files.images import check_size
from segda.errors import DataError, ImageError, RunFailure

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
"""What names of videos end with, in whatever case."""

# What cannot be opened is said by us, in one line. FFmpeg looks here once, when OpenCV first needs it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

LONGEST = 3000
"""Frames of a short video: two minutes of 25 a second. A video has to be decoded from its start."""

USUAL = 25.0
"""Frames a second, where a file or a camera does not say."""


def is_video(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


@dataclass(frozen=True)
class Film:
    """An open video or camera. rate: frames a second. said: how many frames it says it has; 0 where it does not."""

    where: str
    reader: cv2.VideoCapture
    rate: float
    said: int

    def __len__(self) -> int:
        return self.said

    def __iter__(self) -> Iterator[Tensor]:
        """(3, H, W) uint8 RGB, from the first frame on. ImageError where one is damaged or too large."""
        while self.reader.grab():
            yield self.frame()

    def frame(self) -> Tensor:
        """The one that was grabbed last."""
        whole, bgr = self.reader.retrieve()
        if not whole:
            raise ImageError(f"{self.where}: a frame of it is damaged; convert it, or cut that part out", self.where)
        height, width = bgr.shape[:2]
        check_size(Path(self.where), width, height)
        return torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


@contextmanager
def opened(source: Path | int) -> Iterator[Film]:
    """A file, or the camera of that number. DataError where it cannot be opened."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    if isinstance(source, int):
        reader, where = cv2.VideoCapture(source), f"camera {source}"
        fault = "cannot be opened; is it plugged in, and not in use?"
    else:
        reader, where = cv2.VideoCapture(str(source), cv2.CAP_FFMPEG), str(source)
        kinds = ", ".join(suffix[1:] for suffix in SUFFIXES)
        fault = f"no video that can be read; convert it to one of {kinds}" if source.exists() else "no such file"
    cv2.utils.logging.setLogLevel(level)
    try:
        if not reader.isOpened():
            raise DataError(f"{where}: {fault}")
        rate, said = reader.get(cv2.CAP_PROP_FPS), reader.get(cv2.CAP_PROP_FRAME_COUNT)
        yield Film(where, reader, rate if 0 < rate < 1000 else USUAL, max(0, int(said)))
    finally:
        reader.release()


def frames_of(path: Path, most: int) -> Iterator[tuple[float, Tensor]]:
    """Up to `most` frames of a short video, evenly spread, the first among them: seconds from the start, (3, H, W)
    uint8 RGB.

    DataError for a file that is no video, is damaged, or has more than LONGEST frames. A file may say a number of
    frames that it has not; it is decoded once to count them.
    """
    count = 0
    with opened(path) as film:
        while film.reader.grab():
            count += 1
            if count > LONGEST:
                raise DataError(f"{path}: has more than {LONGEST} frames; cut a part out of it")
    if count == 0:
        raise DataError(f"{path}: has no frame that can be read; convert it")
    wanted = {round(float(at)) for at in np.linspace(0, count, min(count, most), endpoint=False)}
    with opened(path) as film:
        for number in range(count):
            if film.reader.grab() and number in wanted:
                yield number / film.rate, film.frame()


class Writer:
    """A video of MPEG-4 in an .mp4 file; begun with its first frame, whose size all have."""

    def __init__(self, path: Path, rate: float):
        self.path, self.rate = path, rate
        self.frames = 0
        self._video: cv2.VideoWriter | None = None

    def write(self, pixels: np.ndarray) -> None:
        """(H, W, 3) uint8 RGB."""
        height, width = pixels.shape[:2]
        if self._video is None:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._video = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, codec, self.rate, (width, height))
            if not self._video.isOpened():
                raise RunFailure(f"{self.path}: this machine's OpenCV cannot write a video of {width}x{height} there")
        self._video.write(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
        self.frames += 1

    def end(self) -> None:
        if self._video is not None:
            self._video.release()
