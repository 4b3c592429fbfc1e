"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from segda import run as runs
from segda.commands.report import report
from segda.evaluation.metrics import write_reports
from segda.files import write_text
from segda.hardware import environment, peak_memory
from segda.progress import Track, quietly
from segda.recipe import Recipe, load_recipe
from segda.training import loop


def train(
    recipe: Recipe | str | Path,
    out: Path | str,
    root: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    check: bool = False,
    say: Callable[[str], None] = print,
    track: Track = quietly,
) -> None:
    """Train a network by RECIPE (a shipped name or a YAML file) and write everything about it to the run folder OUT.

    The recipe is checked, the data sets are found and the network is built before the first image is read. At the end
    the run is scored on the recipe's evaluate.data and report.html is made. --check stops after a few steps on real
    data and says what the run will take.
    """
    out = Path(out)
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    root = runs.data_root(recipe, root).absolute()
    # Whoever reads the run folder later finds the data without being told again.
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": root})})
    if check:
        loop.trial(loop.assemble(recipe, root, None, track, say), say)
        return
    runs.check_folder(out, recipe, resume=resume, overwrite=overwrite)
    # Built before the folder is touched: a recipe that cannot run leaves nothing behind.
    training = loop.assemble(recipe, root, out.parent / ".segda", track, say)
    if not resume:
        runs.begin(out, recipe)
    else:
        training.restore(runs.load_checkpoint(out), out / "last.pt")
        runs.cut_log(out, training.t)
        say(f"resumed after step {training.t}")
    facts = environment(training.device, training.precision)
    # Target scenes are read without their labels, always; see data/stream.py.
    facts |= {"start": training.method.student.origin, "target_labels_read": False}
    write_text(out / "environment.json", json.dumps(facts, indent=2) + "\n")

    loop.fit(training, out, say, track)

    write_text(
        out / "environment.json",
        json.dumps(facts | {"peak_memory": peak_memory(training.device)}, indent=2) + "\n",
    )
    scores = loop.score(training, out, say, track)
    for dataset in training.scored:
        write_reports(out, [score for score in scores if score.protocol.data == dataset.spec])
    if training.scored:
        say(f"report: {report(out, track=track)}")
    else:
        say(f"not scored: evaluate.data is empty; `segda evaluate {out} --data NAME:SPLIT` measures it")
