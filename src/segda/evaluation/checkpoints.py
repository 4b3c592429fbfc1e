"""Every snapshot of a run, measured."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segda.data.sets.labelled import open_labelled
from segda.distributed import group
from segda.errors import RunError
from segda.evaluation.measure import evaluate_network, existing, facts, protocol_of
from segda.evaluation.metrics import Report, read_reports, write_reports
from segda.evaluation.snapshots import Snapshot, Snapshots, read_snapshots, write_snapshots
from segda.ground.hardware import DeviceName, PrecisionName, autocast, pick_device, pick_precision
from segda.run import FILES, data_root, load_network, load_recipe_of, snapshots, space_of, step_of


@group.joined()
def evaluate_snapshots(
    run: Path | str,
    data: Sequence[str],
    root: Path | None = None,
    device: DeviceName = "auto",
    precision: PrecisionName = "auto",
) -> list[Snapshots]:
    """Measure every snapshot that a run kept of its student (recipe key keep_every), and its last checkpoint.

    Goes to RUN/reports/NAME-SPLIT-snapshots.json after each snapshot. What was measured before in the same way, of the
    same weights, is not measured again. The last checkpoint's report is the run's own and written as `evaluate` does;
    the best of all is an oracle's choice, see Snapshots.
    """
    run = Path(run)

    def ready() -> tuple[Any, ...]:
        recipe = load_recipe_of(run)
        kept = snapshots_of(run)
        where = group.own_device(pick_device(device))
        existing(run, ["student"])
        opened = [open_labelled(spec, data_root(recipe, root), space_of(recipe)) for spec in data]
        before = {each.data: each.by_step for each in read_snapshots(run)}
        last = step_of(run)
        # The last checkpoint comes first and stands for a snapshot of its step, which holds the same weights.
        files = {last: run / FILES["student"]} | {step: path for step, path in kept.items() if step != last}
        return recipe, where, pick_precision(precision, where), opened, before, files

    recipe, where, dtype, opened, before, files = group.all_succeed(ready)
    last = next(iter(files))
    marks = {step: _mark(path) for step, path in files.items()}
    done = []
    for dataset in opened:
        known = {step: facts(run, "student", dtype) | {"step": step} for step in files}
        wanted = {step: (marks[step], protocol_of(dataset, recipe.evaluate, **known[step])) for step in files}
        measured = {
            step: snapshot
            for step, snapshot in before.get(dataset.spec, {}).items()
            if (snapshot.mark, snapshot.report.protocol) == wanted.get(step)
        }
        for step in files:
            if step in measured:
                continue
            network = group.all_succeed(lambda at=step: load_network(run, "student", where, None if at == last else at))
            report = evaluate_network(network, dataset, recipe.evaluate, where, autocast(where, dtype), known[step])
            measured[step] = Snapshot(marks[step], report)
            # Each time: an interrupted call goes on where it stopped.
            group.on_rank_zero(write_snapshots, run, Snapshots(dataset.spec, measured, last))
        group.on_rank_zero(_write_last, run, measured[last].report)
        done.append(Snapshots(dataset.spec, measured, last))
        # Also where nothing was missing: a snapshot may have gone.
        group.on_rank_zero(write_snapshots, run, done[-1])
    return done


def _write_last(run: Path, student: Report) -> None:
    """The report of the last checkpoint's student becomes the run's own, beside its teacher's on the same data."""
    data = student.protocol.data
    reports = [each for each in read_reports(run) if (each.protocol.data, each.protocol.weights) == (data, "teacher")]
    write_reports(run, [student, *reports])


def snapshots_of(run: Path) -> dict[int, Path]:
    kept = snapshots(run)
    if not kept:
        raise RunError(f"{run} has no snapshots (snapshots/network-*.safetensors); train with keep_every: 2000")
    return kept


def _mark(path: Path) -> str:
    with path.open("rb") as weights:
        return hashlib.file_digest(weights, "sha256").hexdigest()
