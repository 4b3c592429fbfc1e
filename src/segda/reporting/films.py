"""What a network makes of videos and of a camera, as videos."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from segda.data.files import video
from segda.data.labels.spaces import Space
from segda.distributed import group
from segda.errors import DataError, RecipeError, RunError
from segda.evaluation.inference import views
from segda.evaluation.look import Eye, Sight, resting
from segda.evaluation.soundness import refuse_too_small
from segda.ground.alone import alone_in
from segda.ground.atomic import emptied
from segda.ground.choices import DeviceName, PaletteName, PrecisionName, Weights
from segda.ground.progress import track
from segda.reporting.pictures import OVERLAY
from segda.reporting.predictions import check_opacity, drawn, refuse_entropy_of_classes, told
from segda.reporting.safe_colours import in_safe_colours
from segda.scene import Scene

log = logging.getLogger(__name__)

UNFINISHED = ".segda-unfinished"
"""Folder in OUT of videos that are being written."""


def predict_films(
    run: Path,
    sources: Sequence[Path | int],
    out: Path,
    weights: Weights,
    pictures: Sequence[str],
    device: DeviceName,
    precision: PrecisionName,
    opacity: float | None,
    palette: PaletteName,
    overwrite: bool,
    step: int | None,
    seconds: float | None,
) -> list[Path]:
    """`segda predict` of videos and of a camera, by its number, see commands/predict.py."""
    if group.world() > 1:
        raise RecipeError("a video is predicted by one process; leave out torchrun")
    check_opacity(opacity)
    if seconds is not None and seconds <= 0:
        raise RecipeError(f"--seconds {seconds:g}: give a number above 0")
    plans = {source: planned(source, out, pictures) for source in sources}
    refuse_meeting(plans, overwrite)
    for source in plans:
        with video.opened(source):
            pass  # what cannot be opened is said before networks are read
    space, _, seen = told(run, weights, device, precision, step)
    if palette == "safe":
        space = in_safe_colours(space)
    eye = seen()
    refuse_entropy_of_classes(run, pictures, eye)
    with alone_in(out, "another process writes predictions to {folder}"), resting([eye.network]):
        for source, files in plans.items():
            with emptied(out / UNFINISHED) as folder, video.opened(source) as film:
                made = {name: folder / path.name for name, path in files.items()}
                write(film, made, eye, space, OVERLAY if opacity is None else opacity, isinstance(source, int), seconds)
                for name, path in files.items():
                    os.replace(made[name], path)
    return [path for files in plans.values() for path in files.values()]


def planned(source: Path | int, out: Path, pictures: Sequence[str]) -> dict[str, Path]:
    """The file of each picture."""
    stem = f"camera{source}" if isinstance(source, int) else source.stem
    return {name: out / f"{stem}_{name}.mp4" for name in pictures}


def refuse_meeting(plans: dict[Path | int, dict[str, Path]], overwrite: bool) -> None:
    """DataError where two videos would be written to one place; RunError where one is there."""
    owner: dict[str, Path | int] = {}
    for source, files in plans.items():
        for path in files.values():
            if (other := owner.setdefault(str(path).casefold(), source)) != source:
                raise DataError(f"{other} and {source} would both be written to {path}; predict them into two folders")
            if isinstance(source, Path) and path.resolve() == source.resolve():
                raise RunError(f"{path} is one of the videos and would be overwritten; choose another --out")
            if path.exists() and not overwrite:
                raise RunError(f"{path} is there; use --overwrite to replace it, or another --out")


def write(
    film: video.Film,
    files: dict[str, Path],
    eye: Eye,
    space: Space,
    opacity: float,
    live: bool,
    seconds: float | None,
) -> None:
    """One video of each picture. live: of a camera, which shows what is there when a frame is through; frames are
    repeated so that the video lasts as long as it took. It ends after so many seconds, or at Ctrl-C.
    """
    frames, begun = 0, time.monotonic()
    with ExitStack() as open_files:
        writers = {name: video.Writer(path, film.rate) for name, path in files.items()}
        for writer in writers.values():
            open_files.callback(writer.end)
        try:
            for image in film if live or not len(film) else track(film, Path(film.where).name):
                refuse_too_small(film.where, (image.shape[1], image.shape[2]), eye.network, eye.settings)
                with torch.inference_mode():
                    seen = views(eye.network, image, eye.settings, eye.device, eye.autocast)
                    content = drawn(Sight(frames, Scene(image), [seen]), tuple(files), space, opacity, False)
                frames += 1
                took = time.monotonic() - begun
                for name, writer in writers.items():
                    for _ in range(max(1, round(took * film.rate) - writer.frames) if live else 1):
                        writer.write(content[name])
                if seconds is not None and (took if live else frames / film.rate) >= seconds:
                    break
        except KeyboardInterrupt:
            if not live or not frames:
                raise
    if not frames:
        raise DataError(f"{film.where}: has no frame that can be read; convert it")
    took = time.monotonic() - begun
    log.info(f"{film.where}: {frames} frames, {frames / took:.1f} a second")
