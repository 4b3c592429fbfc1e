"""A run folder small enough for tests: the small recipe's network with random weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from conftest import small_recipe
from segda import run as runs
from segda.data.labels.spaces import space_named
from segda.networks import NETWORKS
from segda.recipes.build import build

SPACE = space_named("camvid-11")
DUSK = "camvid:test:dusk"


def write_run(run: Path, **given) -> Path:
    """A finished run folder, as of `build_run`: the files of one that this process has built."""
    if run.exists():  # then what was there is taken away as a training does
        return build_run(run, **given)
    run.mkdir(parents=True)
    files, drawn = built(json.dumps(given))
    for name, content in files.items():
        (run / name).write_bytes(content)
    torch.set_rng_state(drawn)
    return run


@cache
def built(given: str) -> tuple[dict[str, bytes], torch.Tensor]:
    """The files of a run that was built so, and how far the numbers are drawn then."""
    with TemporaryDirectory() as folder:
        run = build_run(Path(folder) / "run", **json.loads(given))
        return {path.name: path.read_bytes() for path in sorted(run.iterdir())}, torch.get_rng_state()


def build_run(run: Path, *, teacher: bool = False, seed: int = 0, **evaluate) -> Path:
    """A finished run folder, but for the weights, which are random, and the reports, which are not there."""
    # A root of no folder: tests name the data that they read.
    recipe = small_recipe(Path("data")).override("evaluate.report_images=2")
    recipe = recipe.override(*(f"evaluate.{key}={json.dumps(value)}" for key, value in evaluate.items()))
    runs.begin(run, recipe)
    for which in ("student", *(["teacher"] if teacher else [])):
        torch.manual_seed(seed + (which == "teacher"))
        network = build(NETWORKS, recipe.network, "network", class_names=SPACE.classes)
        # Batch norm's running statistics as they are before any step would make all predictions alike.
        for buffer in network.decoder.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(0.1, 1)
        runs.save_network(runs.product_path(run, which), network, recipe.network, recipe.steps)
    for step in range(1, recipe.steps + 1):
        runs.append_log(run, {"step": step, "seconds": 0.5, "source": 0.2 / step, "lr/student/encoder": 1e-5 / step})
    (run / "environment.json").write_text(json.dumps({"python": "3.11", "device": "cpu", "start": "from scratch"}))
    return run
