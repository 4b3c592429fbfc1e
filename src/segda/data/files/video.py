"""Frames of short videos, by OpenCV's own FFmpeg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from segda.data.files.images import check_size
from segda.errors import ImageError

SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm")
"""What names of videos end with, in whatever case."""

LONGEST = 3000
"""Frames: two minutes of 25 a second. A video has to be decoded from its start."""


def frames_of(path: Path, most: int) -> Iterator[tuple[float, Tensor]]:
    """Up to `most` frames, evenly spread, the first among them: seconds from the start, (3, H, W) uint8 RGB.

    ImageError for a file that is no video, is damaged, or has more than LONGEST frames. A file may say a number of
    frames that it has not; it is decoded once to count them.
    """
    count = sum(1 for _ in _grabbed(path))
    if count == 0:
        raise ImageError(f"{path}: no video that can be read ({', '.join(SUFFIXES)}), or damaged; convert it", path)
    wanted = {round(float(at)) for at in np.linspace(0, count, min(count, most), endpoint=False)}
    for number, (second, video) in enumerate(_grabbed(path)):
        if number in wanted:
            whole, bgr = video.retrieve()
            if not whole:
                raise ImageError(f"{path}: damaged at {second:.1f} s; convert it, or cut it before", path)
            height, width = bgr.shape[:2]
            check_size(path, width, height)
            yield second, torch.from_numpy(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)).permute(2, 0, 1)


def _grabbed(path: Path) -> Iterator[tuple[float, cv2.VideoCapture]]:
    """Each frame's second, and the reader that stands there."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        rate = video.get(cv2.CAP_PROP_FPS) or 25.0
        for number in range(LONGEST + 1):
            if not video.grab():
                return
            if number == LONGEST:
                raise ImageError(f"{path}: has more than {LONGEST} frames; cut a part out of it", path)
            yield number / rate, video
    finally:
        video.release()
