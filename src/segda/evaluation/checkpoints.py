"""Every snapshot of a run, measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from segda.distributed import group
from segda.errors import RunError
from segda.evaluation.measure import STUDENT_AND_TEACHER, evaluate_network, existing, facts, protocol_of
from segda.evaluation.metrics import Report, read_list, report_path, write_reports
from segda.evaluation.snapshots import Snapshot, Snapshots, read_snapshots, write_snapshots
from segda.ground.choices import DeviceName, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.paths import sha256_of
from segda.run import data_root, load_network, load_recipe_of, product_path, snapshots, step_of
from segda.run_data import measured_on


@group.joined()
def evaluate_snapshots(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
    weights: Weights = "student",
) -> list[Snapshots]:
    """Measure every snapshot that a run kept of its student, or its teacher (recipe key keep_every), and the last one.

    Goes to RUN/reports/NAME-SPLIT-snapshots.json (a teacher's: -snapshots-teacher.json) after each snapshot. What was
    measured before in the same way, of the same weights, is not measured again. The last checkpoint's report is the
    run's own and written as `evaluate` does; the best of all is an oracle's choice, see Snapshots.
    """
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        check_snapshots(run, [weights])
        where = group.own_device(pick_device(device))
        existing(run, [weights])
        opened = [measured_on(run, spec, data_root(recipe, root)) for spec in data]
        before = {each.data: each.by_step for each in read_snapshots(run) if each.weights == weights}
        last = step_of(run, weights)
        kept = snapshots(run, weights)
        # The last checkpoint comes first and stands for a snapshot of its step, which holds the same weights.
        files = {last: product_path(run, weights)} | {step: path for step, path in kept.items() if step != last}
        return recipe, where, pick_precision(precision, where), opened, before, files

    recipe, where, dtype, opened, before, files = group.all_succeed(ready)
    last = next(iter(files))
    marks = {step: sha256_of(path) for step, path in files.items()}
    done = []
    for dataset in opened:
        known = {step: facts(run, weights, dtype, step) for step in files}
        wanted = {step: (marks[step], protocol_of(dataset, recipe.evaluate, **known[step])) for step in files}
        measured = {
            step: snapshot
            for step, snapshot in before.get(dataset.spec, {}).items()
            if (snapshot.mark, snapshot.report.protocol) == wanted.get(step)
        }
        for step in files:
            if step in measured:
                continue
            at = None if step == last else step
            network = group.all_succeed(partial(load_network, run, weights, where, at))
            report = evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known[step])
            measured[step] = Snapshot(marks[step], report)
            # Each time: an interrupted call goes on where it stopped.
            group.on_rank_zero(write_snapshots, run, Snapshots(dataset.spec, measured, last))
        group.on_rank_zero(_write_last, run, measured[last].report)
        done.append(Snapshots(dataset.spec, measured, last))
        # Also where nothing was missing: a snapshot may have gone.
        group.on_rank_zero(write_snapshots, run, done[-1])
    return done


def _write_last(run: Path, report: Report) -> None:
    """The report of the last checkpoint becomes the run's own, beside that of its other network on the same data."""
    path = report_path(run, report.protocol.data)
    before = read_list(path) if path.exists() else []
    others = [each for each in before if each.protocol.weights != report.protocol.weights]
    write_reports(run, sorted([report, *others], key=lambda each: STUDENT_AND_TEACHER.index(each.protocol.weights)))


def check_snapshots(run: Path, weights: Sequence[Weights]) -> None:
    """RunError unless the run has snapshots of one of these networks."""
    if not any(snapshots(run, each) for each in weights):
        files = " or ".join(f"snapshots/{product_path(run, each).stem}-*.safetensors" for each in weights)
        raise RunError(f"{run} has no snapshots ({files}); train with keep_every: 2000")
