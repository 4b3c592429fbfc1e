"""`segda report`: a run on one self-contained page: numbers, curves, IoU bars, pictures of what it sees."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from segda.commands.compare import best_of
from segda.commands.evaluate import open_labelled, percent, reports_of
from segda.data.labels import Space
from segda.errors import RunError
from segda.evaluation.inference import labels, labels_and_entropy, views
from segda.evaluation.metrics import Report
from segda.evaluation.pictures import SCALE, coloured, data_uri, entropy_picture, shrunk
from segda.files import write_text
from segda.hardware import DeviceName, autocast, pick_device, pick_precision
from segda.progress import Track, quietly
from segda.recipe import Recipe
from segda.run import data_root, load_network, load_recipe_of, read_log, space_of, step_of

PICTURE = 400
"""Pixels: how wide a picture of the panel is at most."""

POINTS = 400
"""Points of a curve; longer logs are averaged in groups."""

COLOURS = ("#3b82d6", "#e0803a", "#3fa36b", "#b065c9", "#c9a227", "#d1495b")
"""Of curves and bars: legible on white and on near-black."""

BEFORE = "#8c8f96"
"""Of what stands beside the run: the source-only run."""

MEANING = {
    "source": "cross entropy on the labelled source images",
    "mix": "cross entropy on the mixed images",
    "anchor": "distance of the features from the start's",
    "balance": "distance of the entropy from its level, weighted",
    "confident": "share of target pixels with a confident pseudo-label: the pseudo-label weight",
    "entropy": "mean entropy of the mixed images' prediction, in nats",
}
"""What the scalars in a log are; others are shown by their name alone."""


@dataclass(frozen=True)
class Chart:
    """A drawing with the words around it, which are HTML and so in the page's font and escaped."""

    title: str
    note: str
    legend: list[tuple[str, str]]
    alt: str
    svg: Markup


def report(
    run: Path,
    against: Path | None = None,
    device: DeviceName = "auto",
    root: Path | None = None,
    track: Track = quietly,
) -> Path:
    """Write RUN/report.html: results, curves, IoU of each class and pictures of a dozen validation images.

    With --against, a source-only run stands beside it in tables, bars and pictures. The page is one file that
    needs nothing else. Its tables come from the run's reports (segda evaluate), its pictures from the first
    data set in the recipe's evaluate.data.
    """
    run = Path(run)
    recipe, reports = load_recipe_of(run), reports_of(run)
    space = space_of(recipe)
    others: list[Report] = []
    if against is not None:
        against = Path(against)
        if space_of(load_recipe_of(against)).classes != space.classes:
            raise RunError(f"{against} has other classes than {run}; give a run on the same data with --against")
        others = [other for other in reports_of(against) if other.protocol.weights == "student"]
        if not {other.protocol.data for other in others} & {report.protocol.data for report in reports}:
            spec = reports[0].protocol.data
            raise RunError(f"{against} was not measured on {spec}: segda evaluate {against} --data {spec}")
    log = list(read_log(run))
    facts = _environment(run)
    page = _template().render(
        title=recipe.name,
        recipe=recipe,
        step=step_of(run, "student"),
        facts=_flat(facts),
        labels_unread=facts.get("target_labels_read") is False,
        name=run.resolve().name,
        before=against.resolve().name if against else None,
        results=[_result(data, reports, others, against) for data in _data_of(reports)],
        bars=[_bars(data, reports, others, against) for data in _data_of(reports)],
        curves=_curves(log),
        scored=_scored(log),
        panel=_panel(run, against, recipe, root, device, track),
        legend=[(name, _hex(colour)) for name, colour in space.colours.items()],
        scale=", ".join(_hex(SCALE[step]) for step in range(0, 256, 15)),
        most=f"{math.log(len(space.classes)):.2f}",
        yaml=recipe.to_yaml(),
    )
    write_text(run / "report.html", page)
    return run / "report.html"


def _template():
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((files("segda.commands") / "report.html").read_text(encoding="utf-8"))


def _environment(run: Path) -> dict[str, Any]:
    path = run / "environment.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RunError(f"{path} is not JSON ({error}); delete it to go on without it") from error


def _flat(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts as names and texts, nested ones joined."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None)
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [(key.replace("_", " "), text(value)) for key, value in facts.items()]


def _data_of(reports: Iterable[Report]) -> list[str]:
    return list(dict.fromkeys(report.protocol.data for report in reports))


def _beside(
    data: str, reports: Sequence[Report], others: Sequence[Report], against: Path | None
) -> list[tuple[str, Report]]:
    """What is shown of a data set, in this order: the other run, the student, the teacher."""
    columns = [(against.resolve().name, other) for other in others if against and other.protocol.data == data]
    return columns + [(each.protocol.weights, each) for each in reports if each.protocol.data == data]


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
    student = [each for each in reports if (each.protocol.data, each.protocol.weights) == (data, "student")]
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


def _bars(data: str, reports: Sequence[Report], others: Sequence[Report], against: Path | None) -> Chart:
    """IoU of each class as horizontal bars, one colour a network."""
    columns = _beside(data, reports, others, against)
    names = columns[0][1].class_names
    colours = [BEFORE] * (columns[0][1] in others) + list(COLOURS)
    figure, axes = _figure(7.2, 0.5 + len(names) * (0.12 + 0.14 * len(columns)))
    thick = 0.8 / len(columns)
    for number, (_, each) in enumerate(columns):
        middles = np.arange(len(names)) + (number - (len(columns) - 1) / 2) * thick
        axes.barh(middles, np.nan_to_num(100 * each.iou), thick * 0.9, color=colours[number])
        for middle, iou in zip(middles, each.iou, strict=True):
            axes.text(np.nan_to_num(100 * iou) + 0.8, middle, percent(iou), va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20))
    axes.grid(axis="y", visible=False)
    values = "; ".join(
        f"{name}: {', '.join(f'{label} {percent(each.iou[index])}' for label, each in columns)}"
        for index, name in enumerate(names)
    )
    legend = [(name, colour) for (name, _), colour in zip(columns, colours, strict=False)]
    return Chart(f"IoU of each class on {data}, in %", "", legend, f"Bars of IoU in %. {values}", _svg(figure))


def _curves(log: Sequence[dict[str, Any]]) -> list[Chart]:
    """A chart of each scalar of the log; the learning rates share one."""
    training = [line for line in log if "evaluation" not in line]
    names = list(dict.fromkeys(key for line in training for key in line if key not in ("step", "seconds")))
    rates = [name for name in names if name == "lr" or name.startswith("lr/")]
    groups = {name: [name] for name in names if name not in rates}
    if rates:
        groups["learning rate"] = rates
    charts = []
    for title, group in groups.items():
        figure, axes = _figure(3.6, 2.2)
        last = []
        for name, colour in zip(group, _cycle(COLOURS, len(group)), strict=True):
            steps, values = _series(training, name)
            axes.plot(steps, values, color=colour, linewidth=1.3)
            last.append(f"{name} from {values[0]:.4g} to {values[-1]:.4g}")
        short = title.removeprefix("loss/")
        legend = [
            (name.removeprefix("lr/"), colour) for name, colour in zip(group, _cycle(COLOURS, len(group)), strict=True)
        ]
        charts.append(
            Chart(
                short,
                MEANING.get(short, ""),
                legend if len(group) > 1 else [],
                f"Curve over steps: {'; '.join(last)}",
                _svg(figure),
            )
        )
    return charts


def _scored(log: Sequence[dict[str, Any]]) -> list[Chart]:
    """mIoU over steps on each data set that was scored more than once in training."""
    charts = []
    for data in dict.fromkeys(line["evaluation"] for line in log if "evaluation" in line):
        lines = [line for line in log if line.get("evaluation") == data]
        if len(lines) < 2:
            continue
        figure, axes = _figure(3.6, 2.2)
        legend, values = [], []
        for weights, colour in zip(("student", "teacher"), COLOURS, strict=False):
            steps, rates = _series(lines, weights)
            if len(steps):
                axes.plot(steps, 100 * rates, color=colour, linewidth=1.3, marker="o", markersize=3)
                legend.append((weights, colour))
                values.append(f"{weights} from {percent(rates[0])} to {percent(rates[-1])}")
        alt = f"Curves over steps: {'; '.join(values)}"
        charts.append(Chart(f"mIoU on {data}, in %", "", legend, alt, _svg(figure)))
    return charts


def _series(lines: Sequence[dict[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values of one scalar, averaged in groups when there are more than can be seen."""
    points = np.array([(line["step"], line[name]) for line in lines if line.get(name) is not None], np.float64)
    points = points.reshape(-1, 2)
    if len(points) > POINTS:
        points = np.array([group.mean(0) for group in np.array_split(points, POINTS)])
    return points[:, 0], points[:, 1]


def _cycle(colours: Sequence[str], count: int) -> list[str]:
    return [colours[index % len(colours)] for index in range(count)]


INK = "#010203"
"""Stands for the page's text colour while a figure is drawn."""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty chart, in inches, with a light grid and no frame."""
    with matplotlib.rc_context({"font.size": 8, "text.color": INK, "xtick.color": INK, "ytick.color": INK}):
        figure = Figure((width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.grid(color=INK, alpha=0.15, linewidth=0.6)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
    return figure, axes


def _svg(figure: Figure) -> Markup:
    """The figure as an <svg> element whose ink is the page's text colour."""
    text = io.StringIO()
    # Text stays text: the page's font, selectable, a tenth of the size. No date: the same run gives the same
    # page.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "segda", "text.parse_math": False}):
        figure.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # nothing refers to them, and they repeat in the next chart
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'aria-hidden="true"', svg, count=1)
    return Markup(svg.replace(INK, "currentColor"))


def _panel(
    run: Path, against: Path | None, recipe: Recipe, root: Path | None, device: DeviceName, track: Track
) -> dict[str, Any] | None:
    """Pictures of images spread evenly over the first data set of the recipe; None when it wants none."""
    if not recipe.evaluate.data or not recipe.evaluate.report_images:
        return None
    space = space_of(recipe)
    where = pick_device(device)
    # Not the recipe's precision: the run may come from a machine that has another one.
    context = autocast(where, pick_precision("auto", where))
    dataset = open_labelled(recipe.evaluate.data[0], data_root(recipe, root), space)
    network = load_network(run, "student", where)
    other = load_network(against, "student", where) if against else None
    count = min(len(dataset), recipe.evaluate.report_images)
    rows = []
    for index in track(np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist(), "pictures"):
        scene = dataset.read(index, label=True)
        truth, size = scene.label.numpy(), tuple(scene.image.shape[1:])
        image = scene.image.permute(1, 2, 0).numpy()
        cells = [_cell("image", image, "JPEG"), _labelled("truth", truth, truth, space)]
        if other is not None:
            before = labels(views(other, scene.image, recipe.evaluate, where, context), size)
            cells.append(_labelled(against.resolve().name, before.cpu().numpy(), truth, space))
        label, entropy = labels_and_entropy(views(network, scene.image, recipe.evaluate, where, context), size)
        cells.append(_labelled("adapted" if against else "prediction", label.cpu().numpy(), truth, space))
        cells.append(_cell("entropy", entropy_picture(entropy.cpu().numpy(), len(space.classes)), "JPEG"))
        rows.append({"name": dataset.names[index], "cells": cells})
    return {"data": dataset.spec, "columns": [cell["title"] for cell in rows[0]["cells"]], "rows": rows}


def _cell(title: str, pixels: np.ndarray, kind: str, note: str = "") -> dict[str, str]:
    return {"title": title, "uri": data_uri(shrunk(pixels, PICTURE, flat=kind == "PNG"), kind), "note": note}


def _labelled(title: str, label: np.ndarray, truth: np.ndarray, space: Space) -> dict[str, str]:
    """A label map in colours with its share of right pixels; black where nobody knows the truth."""
    asked = truth < len(space.classes)
    right = "" if label is truth or not asked.any() else f"{100 * (label == truth)[asked].mean():.0f} % right"
    return _cell(title, coloured(label, space), "PNG", right)


def _hex(colour: Sequence[int]) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour)
