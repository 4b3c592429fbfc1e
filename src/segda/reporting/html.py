"""A run on one self-contained page: numbers, curves, IoU bars, pictures of what it sees."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jinja2 import Environment, StrictUndefined

from segda.data.labels.spaces import Space, as_hex
from segda.errors import RunError, visible
from segda.evaluation.certainty import labels, labels_and_entropy
from segda.evaluation.look import Eye, Sight, look, spread
from segda.evaluation.measure import outdated, reports_of
from segda.evaluation.metrics import read_reports
from segda.evaluation.snapshots import LAST, ORACLE, Snapshots, read_snapshots
from segda.ground.atomic import write_text
from segda.ground.choices import DeviceName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.safe_yaml import read_json
from segda.recipes.recipe import Recipe
from segda.reporting.charts import bars, curves, peaks, scored, snapshot_curve
from segda.reporting.comparison import Comparison, beside
from segda.reporting.gain import gain_lines
from segda.reporting.pictures import SCALE, coloured, data_uri, entropy_picture, shrunk
from segda.reporting.tables import names_of, percent, points
from segda.reporting.target import target_of
from segda.reporting.watched import PICTURE
from segda.run import data_root, load_network, load_recipe_of, products_in, read_log, step_of
from segda.run_data import measured_on, seen_from_here, space_in


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


@cache
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


def _result(comparison: Comparison, data: str) -> dict[str, Any]:
    """One data set's headline, bars and tables: of the students, and of all that was measured."""
    entries = comparison.entries(data)
    miou = [comparison.summary(data, entry) for entry in entries]
    leading = [comparison.summary(data, entry) for entry in comparison.leading(data)]
    shown, every = (
        [(one.title, report) for one in some for report in comparison.measured(data, one).values()]
        for some in (entries, comparison.entries(data, True))
    )
    return {
        "data": comparison.title(data),
        "headline": [(entry.title, cell.text()) for entry, cell in zip(entries, miou, strict=True)],
        "gain": leading[1].minus(leading[0]).text(points) if len(leading) > 1 else None,
        "grid": comparison.by_class(data),
        "every": comparison.by_class(data, True),
        "bars": bars(data, shown, against=len(shown) > 1),
        "protocols": [(title, "; ".join([report.protocol.sentence(), *report.remarks()])) for title, report in every],
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
    space = space_in(run)
    where = pick_device(device)
    # Not the recipe's precision: the run may come from a machine that has another one.
    context = autocast(where, pick_precision("auto", where))
    dataset = measured_on(run, seen_from_here(run, recipe.evaluate.data[0]), data_root(recipe, root))
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

    # Not split: at the end of a training the first process makes the report alone.
    rows = list(
        look(eyes, dataset, row, title="pictures", indices=spread(len(dataset), count), label=True, split=False)
    )
    return {"data": dataset.spec, "columns": [cell["title"] for cell in rows[0]["cells"]], "rows": rows}


def _cell(title: str, pixels: np.ndarray, kind: Literal["PNG", "JPEG"], note: str = "") -> dict[str, str]:
    return {"title": title, "uri": data_uri(shrunk(pixels, PICTURE, flat=kind == "PNG"), kind), "note": note}


def _labelled(title: str, label: np.ndarray, truth: np.ndarray, space: Space) -> dict[str, str]:
    """A label map in colours with its share of right pixels; black where nobody knows the truth."""
    asked = truth < len(space.classes)
    right = "" if label is truth or not asked.any() else f"{100 * (label == truth)[asked].mean():.0f} % right"
    return _cell(title, coloured(label, space), "PNG", right)


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
    recipe, reports = load_recipe_of(run), read_reports(run)
    space = space_in(run)
    against = None if against is None else Path(against)
    measured = {run: reports}
    if against is not None:
        if space_in(against).classes != space.classes:
            raise RunError(f"{against} has other classes than {run}; give a run on the same data with --against")
        data = {report.protocol.data for report in reports}
        others = [other for other in (reports_of(against) if reports else []) if other.protocol.weights == "student"]
        others = [other for other in others if other.protocol.data in data]
        if reports and not any(other.protocol.whose == "student" for other in others):
            spec = reports[0].protocol.data
            raise RunError(f"{against} was not measured on {spec}: segda evaluate {against} --data {spec}")
        if reports and against.resolve() != run.resolve():  # beside itself, a run is one
            measured = {against: others, run: reports}
    names = dict(zip(measured, names_of(list(measured)), strict=True))
    of_all = {names[place]: of for place, of in measured.items()}
    comparison = beside(of_all, {names[run]: recipe}) if reports else None
    log = list(read_log(run))
    facts = _environment(run)
    page = _template().render(
        title=recipe.name,
        recipe=recipe,
        step=step_of(run, made[0]) if (made := products_in(run)) else None,
        scenes=recipe.data.batch * recipe.accumulate * _processes(facts),
        facts=_flat(facts),
        labels_unread=facts.get("target_labels_read") is False,
        name=visible(run.resolve().name),
        before=None if comparison is None or len(measured) == 1 else comparison.columns[0].title,
        gained=gain_lines(comparison) if comparison else [],
        outdated=[line for place, of in measured.items() for line in outdated(place, of)],
        marks=["; ".join(comparison.marks(everything)) for everything in (False, True)] if comparison else [],
        more=comparison.more() if comparison else [],
        results=[_result(comparison, data) for data in comparison.domains] if comparison else [],
        target=target_of(run, against, recipe, root, device, weights, step),
        curves=curves(log),
        peaks=peaks(log, len(space.classes), level_of(recipe)),
        scored=scored(log),
        left_out=left_out(log),
        snapshots=[_snapshots(each) for each in read_snapshots(run)],
        oracle=ORACLE,
        panel=_panel(run, against, recipe, root, device, weights, step),
        legend=[(name, as_hex(colour)) for name, colour in space.colours.items()],
        scale=", ".join(as_hex(SCALE[step]) for step in range(0, 256, 15)),
        most=f"{math.log(len(space.classes)):.2f}",
        yaml=recipe.to_yaml(),
    )
    write_text(run / "report.html", page)
    return run / "report.html"
