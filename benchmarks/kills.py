"""Trainings that are killed (SIGKILL) again and again and resumed: do they end as if nothing had happened?

    python benchmarks/kills.py KILLS [METHOD[:PRECISION] ...] [--seed N] [--json]

Default: source_only, advent, esl and ebda, each in 32 and bf16, KILLS kills each. Every run is compared, when it has
come to its end, with one that was left alone: SHA-256 of network, teacher and snapshots, and the lines of the log but
for what they say of time. Every other kill comes at a moment drawn from most of the time that a whole run takes; the
others within milliseconds of a file being opened, renamed, linked or removed in the run folder, so while something is
written.

The recipes are those for drawn streets, on noise in the layout of CamVid, with small crops and few steps. The process
here imports segda once; each training is a child of it. Exit code 1 if a run ends otherwise.
"""

from __future__ import annotations

import hashlib
import os
import random
import select
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

import segda.training.stages  # noqa: F401 - what a training imports when it begins: here once, not in each child
from killing import EVENTS, Outcome, measure
from segda import run as runs
from segda.commands.pseudo_label import pseudo_label
from segda.commands.train import train
from segda.methods import METHODS
from segda.recipes.recipe import Recipe, load_recipe
from segda.training import assembly

FRAMES = {"train": ("0006R0_f01", "0006R0_f02", "0001TP_001", "0001TP_002"), "test": ("0001TP_101", "0001TP_102")}
SIZE = (64, 96)
ALL = tuple(
    f"{method}:{precision}" for method in ("source_only", "advent", "esl", "ebda") for precision in ("32", "bf16")
)
SHRUNK = (
    "steps=8", "log_every=3", "save_every=2", "keep=1", "keep_every=4", "device=cpu",
    "data.source.set=camvid:train:day", "data.target.set=camvid:train:dusk", "data.batch=2", "data.workers=0",
    "data.source.augment.resize=null",
    "data.source.augment.crop=[64, 64]", "data.target.augment.resize=null", "data.target.augment.crop=[64, 64]",
    "evaluate.data=[]", "evaluate.resize=null", "evaluate.report_images=0",
)  # fmt: skip
LEAST = ("network={name: 'two_convolutions:TwoConvolutions', channels: 4}",)
"""A network of four tensors, where files count and the network does not."""

MORE = {
    "advent": ("method.width=4",),
    "esl": ("method.width=4",),
    "source_only": ("optim.warmup=2", "network.channels=8"),
    # The start, the teacher and the level, all of them in one.
    "ebda": ("optim.warmup=2", "network.channels=8", "method.level=auto", "method.level_statistic=mean",
             "method.level_momentum=0.9",
             "method.feature_distance={weight: 0.005, classes: [car, pole], min_share: 0.5}"),
}  # fmt: skip
PATIENCE = 300.0


@dataclass(frozen=True)
class Kill:
    """After `seconds`, counted from the start or from the n-th thing done to a file of the run."""

    seconds: float
    event: int | None = None


def write_data(root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, names in FRAMES.items():
        for name in names:
            label = np.kron(rng.integers(0, 12, (SIZE[0] // 8, SIZE[1] // 8)), np.ones((8, 8), int)).astype(np.uint8)
            for folder, pixels in ((split, rng.integers(0, 256, (*SIZE, 3))), (f"{split}annot", label)):
                path = root / "camvid" / folder / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)


def small(method: str, precision: str, root: Path) -> Recipe:
    recipe = load_recipe(f"{method}_streets").override(*SHRUNK, *MORE.get(method, ()), f"precision='{precision}'")
    return recipe.override(f"data.root={root}")


def attempt(recipe: Recipe, out: Path, kill: Kill | None) -> bool:
    """Trains in a child process that is killed, or not; whether it came to its end."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(heard)
        in_child(recipe, out, kill, told)
    os.close(told)
    watch = os.pidfd_open(child)
    try:
        if kill is not None and kill.event is not None:
            select.select([heard, watch], [], [], PATIENCE)
        select.select([watch], [], [], PATIENCE if kill is None else kill.seconds)
        if kill is not None:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    finally:
        os.close(watch)
        os.close(heard)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return False
    assert status == 0, f"a training failed in {out}"
    return True


def in_child(recipe: Recipe, out: Path, kill: Kill | None, told: int) -> None:
    """Trains and ends the process."""
    if kill is not None and kill.event is not None:
        events = iter(range(10**9))

        def listen(event: str, given: tuple) -> None:
            if event not in EVENTS or str(out) not in str(given):
                return
            if next(events) == kill.event:
                os.write(told, b".")

        sys.addaudithook(listen)
    try:
        train(recipe, out, resume=True)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def result(run: Path) -> dict[str, object]:
    """What two equal runs have in common."""
    files = [*run.glob("*.safetensors"), *run.glob("snapshots/*")]
    hashes: dict[str, object] = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }
    lines = [{key: value for key, value in line.items() if key not in runs.PACE} for line in runs.read_log(run)]
    names = sorted(str(path.relative_to(run)) for path in run.rglob("*") if path.is_file())
    return hashes | {"log": lines, "files": names}


def case_of(name: str, kills: int, place: Path, rng: random.Random) -> Outcome:
    method, _, precision = name.partition(":")
    recipe, outcome = small(method, precision or "32", place / "data"), Outcome(name)
    if METHODS[method].target_labels == "must":
        recipe = recipe.override(f"data.target.labels={place / 'labels'}")
    # What is imported when it is first needed is imported here; nothing is computed, since threads survive no fork.
    assembly.assemble(recipe, place / "data", None)
    whole = place / f"{method}-{precision}"
    begin = time.monotonic()
    attempt(recipe, whole, None)
    duration, expected = time.monotonic() - begin, result(whole)
    while outcome.kills < kills:
        outcome.runs += 1
        out = place / f"{method}-{precision}-{outcome.runs}"
        ended = False
        while not ended:
            in_files = rng.random() < 0.5
            # Of some eighty things done to files in a whole run; if there are fewer, nothing is killed.
            kill = Kill(rng.uniform(0, 0.004), rng.randrange(60)) if in_files else Kill(rng.uniform(0, 0.8 * duration))
            ended = attempt(recipe, out, kill if outcome.kills < kills else None)
            outcome.kills += not ended
            outcome.in_files += in_files and not ended
            outcome.before_a_checkpoint += not ended and not (out / "last.pt").exists()
        outcome.equal += result(out) == expected
    return outcome


def write_labels(place: Path) -> None:
    """Pseudo-labels of the target by a run of AdvEnt, in a child: this process never runs a network itself."""
    child = os.fork()
    if child == 0:
        recipe = small("advent", "32", place / "data")
        train(recipe, place / "teacher")
        rule = {"name": "entropy-median", "floor": 0.1, "share": 0.5, "images": "all"}
        pseudo_label([place / "teacher"], recipe.data.target.set, rule, place / "labels", root=place / "data")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, "no pseudo-labels"


def prepare(place: Path, cases: Sequence[str]) -> None:
    torch.set_num_threads(1)  # a fork keeps one thread
    cv2.setNumThreads(0)
    write_data(place / "data")
    if any(case.startswith("esl") for case in cases):
        write_labels(place)


if __name__ == "__main__":
    sys.exit(measure(__doc__.splitlines()[0], ALL, prepare, case_of))
