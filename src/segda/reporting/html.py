"""A run on one self-contained page: numbers, curves, IoU bars, pictures of what it sees."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, StrictUndefined

from segda.data.labels.spaces import Space
from segda.data.sets.labelled import open_labelled
from segda.errors import RunError, visible
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.look import Eye, Sight, look
from segda.evaluation.measure import reports_of
from segda.evaluation.metrics import Report
from segda.evaluation.snapshots import LAST, ORACLE, Snapshots, read_snapshots
from segda.ground.atomic import write_text
from segda.ground.choices import DeviceName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.safe_yaml import read_json
from segda.recipes.recipe import Recipe
from segda.reporting.charts import bars, curves, peaks, scored, snapshot_curve
from segda.reporting.comparison import best_of
from segda.reporting.pictures import SCALE, coloured, data_uri, entropy_picture, shrunk
from segda.reporting.tables import percent
from segda.run import data_root, load_network, load_recipe_of, read_log, space_of, step_of

PICTURE = 400
"""Pixels: how wide a picture of the panel is at most."""


def _processes(facts: Mapping[str, Any]) -> int:
    """How many processes shared a step; one where nobody says so."""
    count = facts.get("processes")
    return count if isinstance(count, int) and 0 < count < 1_000_000 else 1


NAMED = 50
"""So many of the files that were left out are named."""


def left_out(log: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How often a draw met an image or label that could not be read (data.on_bad_image: skip), and the files, the most
    frequent first; None where there are none.
    """
    files = Counter(line["skipped"] for line in log if "skipped" in line)
    if not files:
        return None
    return {"times": files.total(), "files": len(files), "named": files.most_common(NAMED)}


def level_of(recipe: Recipe) -> float | None:
    """The fixed level of a method that balances the entropy."""
    level = recipe.method.get("level")
    return level if isinstance(level, int | float) else None


def _template():
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("segda.reporting") / "report.html").read_text(encoding="utf-8"))


def _environment(run: Path) -> dict[str, Any]:
    path = run / "environment.json"
    try:
        facts = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is not JSON ({error}); delete it to go on without it") from error
    if not isinstance(facts, dict):
        raise RunError(f"{path} holds no facts by name; delete it to go on without it")
    return facts


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts as names and texts, nested ones joined."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None)
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [(visible(key.replace("_", " ")), visible(text(value))) for key, value in facts.items()]


def _data_of(reports: Iterable[Report]) -> list[str]:
    return list(dict.fromkeys(report.protocol.data for report in reports))


def _beside(
    data: str, reports: Sequence[Report], others: Sequence[Report], against: Path | None
) -> list[tuple[str, Report]]:
    """What is shown of a data set, in this order: the other run, the student, the teacher."""
    columns = [(visible(against.resolve().name), other) for other in others if against and other.protocol.data == data]
    return columns + [(each.protocol.whose, each) for each in reports if each.protocol.data == data]


def _result(data: str, reports: Sequence[Report], others: Sequence[Report], against: Path | None) -> dict[str, Any]:
    """One data set's table and headline."""
    columns = _beside(data, reports, others, against)
    first = columns[0][1]
    lines = [
        (name, percent(first.share[index]), [each.iou[index] for _, each in columns])
        for index, name in enumerate(first.class_names)
    ]
    lines += [(name, "", [each.rates()[name] for _, each in columns]) for name in first.rates()]
    rows = [
        {"name": name, "share": share, "cells": list(zip(map(percent, rates), best_of(rates), strict=True))}
        for name, share, rates in lines
    ]
    before = [each for _, each in columns if each in others]
    student = [each for each in reports if (each.protocol.data, each.protocol.whose) == (data, "student")]
    gain = f"{100 * (student[0].miou - before[0].miou):+.1f}" if before and student else None
    return {
        "data": data,
        "columns": [name for name, _ in columns],
        "rows": rows,
        "classes": len(first.class_names),
        "protocols": [(name, each.protocol.sentence()) for name, each in columns],
        "headline": [(name, percent(each.miou)) for name, each in columns],
        "gain": gain,
    }


def _snapshots(measured: Snapshots) -> dict[str, Any]:
    """The curve and the table of one data set's snapshots."""
    summaries = {step: measured.by_step[step].report.rates() for step in measured.mious()}
    return {
        "data": measured.data,
        "weights": measured.weights,
        "chart": snapshot_curve(measured),
        "names": list(summaries[measured.last]),
        "rows": [
            {
                "step": step,
                "cells": list(map(percent, rates.values())),
                "notes": [LAST] * (step == measured.last) + [ORACLE] * (step == measured.best),
            }
            for step, rates in summaries.items()
        ],
    }


def _panel(
    run: Path,
    against: Path | None,
    recipe: Recipe,
    root: Path | None,
    device: DeviceName,
    weights: Weights,
    step: int | None,
) -> dict[str, Any] | None:
    """Pictures of images spread evenly over the first data set of the recipe; None when it wants none."""
    if not recipe.evaluate.data or not recipe.evaluate.report_images:
        return None
    space = space_of(recipe)
    where = pick_device(device)
    # Not the recipe's precision: the run may come from a machine that has another one.
    context = autocast(where, pick_precision("auto", where))
    dataset = open_labelled(recipe.evaluate.data[0], data_root(recipe, root), space)
    eyes = [Eye(load_network(run, weights, where, step), recipe.evaluate, where, context)]
    if against:
        eyes.append(Eye(load_network(against, "student", where), recipe.evaluate, where, context))
    count = min(len(dataset), recipe.evaluate.report_images)

    beside = "" if against is None else visible(against.resolve().name)
    seen_by = "adapted" if against else "prediction"
    if weights != "student" or step is not None:
        seen_by += f" ({weights}{'' if step is None else f' after step {step}'})"

    def row(sight: Sight) -> dict[str, Any]:
        assert sight.scene.label is not None
        image, truth = sight.scene.image.permute(1, 2, 0).numpy(), sight.scene.label.numpy()
        cells = [_cell("image", image, "JPEG"), _labelled("truth", truth, truth, space)]
        for other in sight.by_eye[1:]:
            before = labels(other, sight.size)
            cells.append(_labelled(beside, before.cpu().numpy(), truth, space))
        label, entropy = labels_and_entropy(sight.by_eye[0], sight.size)
        cells.append(_labelled(seen_by, label.cpu().numpy(), truth, space))
        cells.append(_cell("entropy", entropy_picture(entropy.cpu().numpy(), len(space.classes)), "JPEG"))
        return {"name": dataset.names[sight.index], "cells": cells}

    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    # Not split: at the end of a training the first process makes the report alone.
    rows = list(look(eyes, dataset, row, title="pictures", indices=chosen, label=True, split=False))
    return {"data": dataset.spec, "columns": [cell["title"] for cell in rows[0]["cells"]], "rows": rows}


def _cell(title: str, pixels: np.ndarray, kind: Literal["PNG", "JPEG"], note: str = "") -> dict[str, str]:
    return {"title": title, "uri": data_uri(shrunk(pixels, PICTURE, flat=kind == "PNG"), kind), "note": note}


def _labelled(title: str, label: np.ndarray, truth: np.ndarray, space: Space) -> dict[str, str]:
    """A label map in colours with its share of right pixels; black where nobody knows the truth."""
    asked = truth < len(space.classes)
    right = "" if label is truth or not asked.any() else f"{100 * (label == truth)[asked].mean():.0f} % right"
    return _cell(title, coloured(label, space), "PNG", right)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)


def write_report(
    run: Path,
    against: Path | None = None,
    device: DeviceName = "auto",
    root: Path | None = None,
    weights: Weights = "student",
    step: int | None = None,
) -> Path:
    """Writes RUN/report.html; `against`: a run to show beside it. weights, step: whose pictures."""
    run = Path(run)
    recipe, reports = load_recipe_of(run), reports_of(run)
    space = space_of(recipe)
    others: list[Report] = []
    if against is not None:
        against = Path(against)
        if space_of(load_recipe_of(against)).classes != space.classes:
            raise RunError(f"{against} has other classes than {run}; give a run on the same data with --against")
        others = [other for other in reports_of(against) if other.protocol.whose == "student"]
        if not {other.protocol.data for other in others} & {report.protocol.data for report in reports}:
            spec = reports[0].protocol.data
            raise RunError(f"{against} was not measured on {spec}: segda evaluate {against} --data {spec}")
    log = list(read_log(run))
    facts = _environment(run)
    page = _template().render(
        title=recipe.name,
        recipe=recipe,
        step=step_of(run, "student"),
        scenes=recipe.data.batch * recipe.accumulate * _processes(facts),
        facts=_flat(facts),
        labels_unread=facts.get("target_labels_read") is False,
        name=visible(run.resolve().name),
        before=visible(against.resolve().name) if against else None,
        results=[_result(data, reports, others, against) for data in _data_of(reports)],
        bars=[bars(data, _beside(data, reports, others, against), others) for data in _data_of(reports)],
        curves=curves(log),
        peaks=peaks(log, len(space.classes), level_of(recipe)),
        scored=scored(log),
        left_out=left_out(log),
        snapshots=[_snapshots(each) for each in read_snapshots(run)],
        oracle=ORACLE,
        panel=_panel(run, against, recipe, root, device, weights, step),
        legend=[(name, _hex(colour)) for name, colour in space.colours.items()],
        scale=", ".join(_hex(SCALE[step]) for step in range(0, 256, 15)),
        most=f"{math.log(len(space.classes)):.2f}",
        yaml=recipe.to_yaml(),
    )
    write_text(run / "report.html", page)
    return run / "report.html"
