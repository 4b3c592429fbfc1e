"""The runs of a sweep file (see recipes/sweeps.py), one after the other, and one table of them.

Each run is one `segda train` in a process of its own: one that fails takes no other with it. All recipes are made and
all folders are looked at before the first begins; what is finished is skipped, what was interrupted goes on.
"""

from __future__ import annotations

import logging
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from segda import run as runs
from segda.errors import Interrupted, RecipeError, RunError
from segda.evaluation.metrics import read_reports
from segda.ground.alone import alone_in
from segda.ground.trust import python, same_imports, trusted
from segda.recipes.diff import fingerprint
from segda.recipes.recipe import Recipe, load_recipe
from segda.recipes.sweeps import Combination, load_sweep
from segda.reporting.comparison import Comparison, side_by_side
from segda.training.stages import Planned as Stage
from segda.training.stages import last_trained
from segda.training.stages import plan as plan_stages
from segda.training.stopping import BY_HAND, Stopping

log = logging.getLogger(__name__)

GO_ON: dict[runs.Standing, list[str]] = {"new": [], "begun": ["--resume"], "unsaved": ["--overwrite"]}
"""How `segda train` takes a run up. Before its first checkpoint, a run has nothing to go on from."""

PATIENCE = 20.0
"""Seconds that an interrupted run has to leave."""


@dataclass(frozen=True)
class Planned:
    """One run of a sweep: where it goes, and how it is trained."""

    out: Path
    recipe: Recipe
    """As the run folder will hold it, but for data.root."""
    words: tuple[str, ...]
    """Of its command, without `segda`."""
    stages: tuple[Path, ...] = ()
    """Folders of its earlier stages."""

    def standing(self) -> runs.Standing:
        return runs.standing(self.out, self.recipe)

    def command(self, standing: runs.Standing) -> list[str]:
        """The words after `segda` that train it. Stages find out by themselves what is there."""
        return [*self.words, *([] if self.stages else GO_ON[standing])]


@dataclass
class Outcome:
    """What has become of a sweep's runs."""

    finished: list[Path] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    """Run folder -> why."""
    script: list[str] = field(default_factory=list)
    """In place of all that, the commands of a sweep that was not to be run."""

    def comparison(self) -> Comparison | None:
        """The finished runs beside each other, one column for all seeds of a recipe; None where none was measured."""
        measured = [run for run in self.finished if read_reports(run)]
        return side_by_side(measured, seeds=True) if measured else None


def plan(
    file: Path | str,
    out: Path | None = None,
    settings: Sequence[str] = (),
    root: Path | None = None,
    device: str | None = None,
    precision: str | None = None,
) -> list[Planned]:
    """The runs of `sweep`, each recipe made; RecipeError where one cannot be, or where two are the same."""
    combined = load_sweep(file)
    folder = out or combined.runs
    chosen = {"--root": root, "--device": device, "--precision": precision}
    options = [word for option, value in chosen.items() if value is not None for word in (option, str(value))]
    options += [word for place in trusted() for word in ("--trust", place)]
    changed = [f"{key}='{value}'" for key, value in (("device", device), ("precision", precision)) if value is not None]
    planned = []
    for one in combined.combinations:
        changes = [*one.settings, *settings]
        stages = _stages(one, folder, [*changes, *changed], combined.file)
        last = last_trained(stages)
        words = ["train", one.recipe, "--out", str(folder / one.name)]
        words += [word for change in changes for word in ("--set", change)]
        others = tuple(stage.out for stage in stages if stage is not last)
        planned.append(Planned(folder / one.name, last.recipe, (*words, *options), others))
    _check_all_differ(planned, combined.file)
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise RunError(f"{there} is a file, so no run can be written to {folder}; choose another --out")
    return planned


def script(planned: Sequence[Planned]) -> Iterator[str]:
    """The commands of a sweep as lines for a shell; what is finished as a comment."""
    for run, standing in [(run, run.standing()) for run in planned]:
        yield f"# {run.out} is there" if standing == "finished" else shlex.join(["segda", *run.command(standing)])


def in_its_own_process(words: Sequence[str]) -> str | None:
    """`segda WORDS`; None when it went well, else what it said last. KeyboardInterrupt when it was interrupted.

    Signals of training/stopping.py that reach this process reach the run, too; Interrupted after one of machines.
    """
    command = python("-m", "segda", *words)
    last = ""
    # Standard error goes through us: its last line is the reason, which is said again at the end.
    with (
        Stopping() as stopping,
        subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace", env=same_imports()
        ) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                last = line.strip() or last
            code = process.wait()
        except KeyboardInterrupt:
            asked = stopping.asked or signal.SIGINT
            # A terminal's Ctrl-C has reached the run, too; a signal to this process alone has not.
            if asked in BY_HAND:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            if process.poll() is None:
                process.send_signal(asked)
            if asked in BY_HAND:
                raise
            for line in process.stderr:  # what of it is saved
                print(line, end="", file=sys.stderr, flush=True)
            process.wait()
            raise Interrupted(f"the sweep was stopped by {stopping.name}", stopping.exit_code, True) from None
    if code in (130, 131, -signal.SIGINT):
        raise KeyboardInterrupt
    if code < 0:
        return f"ended by {signal.Signals(-code).name}{f' after: {last}' if last else ''}"
    return None if code == 0 else f"exit code {code}: {last.removeprefix('segda: ')}"


def _stages(one: Combination, folder: Path, changes: Sequence[str], file: str) -> list[Stage]:
    """The stages of a run, of which the last that trains is as the run folder will hold it."""
    try:
        recipe = load_recipe(one.recipe)
        return plan_stages(recipe.override(*changes) if changes else recipe, folder / one.name)
    except RecipeError as error:
        raise RecipeError(f"{file}: run {one.name}: {error}") from error


def _check_all_differ(planned: Sequence[Planned], file: str) -> None:
    """Two runs in one folder would be one, and two of one recipe would count twice."""
    places: set[str] = set()
    recipes: dict[str, Planned] = {}
    for run in planned:
        for name in (run.out.name, *(place.name for place in run.stages)):
            # Folders whose names differ in capitals alone are one on some machines.
            if name.casefold() in places:
                raise RecipeError(
                    f"{file}: two runs would write {run.out.with_name(name)}; name their values otherwise"
                )
            places.add(name.casefold())
        other = recipes.setdefault(fingerprint(run.recipe, run.out), run)
        if other is not run:
            raise RecipeError(
                f"{file}: {other.out.name} and {run.out.name} are the same recipe: a later key undoes an earlier one, "
                "or two values are equal; remove or exclude one"
            )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One sweep at a time in a folder: two would train the same runs, each after the other's."""
    with alone_in(folder, "{folder}: another sweep is at work there", lock=".segda/sweep.lock"):
        yield


def train_all(planned: Sequence[Planned]) -> Outcome:
    """Trains what is not finished, one run after the other."""
    outcome = Outcome()
    with _alone(planned[0].out.parent):
        standings = [run.standing() for run in planned]
        for number, (run, standing) in enumerate(zip(planned, standings, strict=True), 1):
            title = f"run {number} of {len(planned)}"
            if standing == "finished":
                log.info(f"{title}: {run.out} is there; skipped")
                outcome.finished.append(run.out)
                continue
            words = run.command(standing)
            log.info(f"{title}: {shlex.join(['segda', *words])}")
            fault = in_its_own_process(words)
            if fault is None and run.standing() != "finished":  # it was terminated, which is no fault
                fault = "stopped before its end; call the sweep again"
            if fault is None:
                outcome.finished.append(run.out)
            else:
                outcome.failed[run.out] = fault
                log.info(f"{title}: {run.out} failed")
    return outcome
