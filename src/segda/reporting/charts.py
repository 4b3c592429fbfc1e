"""The drawings of report.html, as SVG whose ink is the page's: IoU of each class, curves of the log, snapshots."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from segda.evaluation.metrics import Report
from segda.evaluation.snapshots import LAST, ORACLE, Snapshots
from segda.reporting.tables import percent
from segda.reporting.words import meanings
from segda.run import PACE

POINTS = 400
"""Points of a curve; longer logs are averaged in groups."""

COLOURS = ("#3b82d6", "#e0803a", "#3fa36b", "#b065c9", "#c9a227", "#d1495b")
"""Of curves and bars: legible on white and on near-black."""

BEFORE = "#8c8f96"
"""Of what stands beside the run: the source-only run."""


@dataclass(frozen=True)
class Chart:
    """A drawing with the words around it, which are HTML and so in the page's font and escaped."""

    title: str
    note: str
    legend: list[tuple[str, str]]
    alt: str
    svg: Markup


def bars(data: str, columns: Sequence[tuple[str, Report]], *, against: bool) -> Chart:
    """IoU of each class as horizontal bars, one colour a network; against: grey for the first, the yardstick."""
    names = columns[0][1].class_names
    colours = [BEFORE] * against + _cycle(COLOURS, len(columns) - against)
    figure, axes = _figure(7.2, 0.5 + len(names) * (0.12 + 0.14 * len(columns)))
    thick = 0.8 / len(columns)
    for number, (_, each) in enumerate(columns):
        middles = np.arange(len(names)) + (number - (len(columns) - 1) / 2) * thick
        axes.barh(middles, np.nan_to_num(100 * each.iou), thick * 0.9, color=colours[number])
        for middle, iou in zip(middles, each.iou, strict=True):
            axes.text(np.nan_to_num(100 * iou) + 0.8, middle, percent(iou), va="center", fontsize=7, color=INK)
    axes.set_yticks(range(len(names)), names, parse_math=False)  # a class may be called $x$
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


def curves(log: Sequence[dict[str, Any]]) -> list[Chart]:
    """A chart of each scalar of the log. Scalars that differ in the last part of their name share one, as fool/main and
    fool/aux do, and so do all learning rates; where several are equal throughout, they are one line. The entropy has
    charts of its own, see `peaks`; what was watched of the target is a table.
    """
    training = [line for line in log if "evaluation" not in line and "skipped" not in line]
    names = list(dict.fromkeys(key for line in training for key in line if key not in ("step", *PACE)))
    names = [name for name in names if not name.startswith(("H/", "histogram/", "watched/"))]
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_group(name), []).append(name)
    if LEARNING_RATE in groups:  # it comes last
        groups[LEARNING_RATE] = groups.pop(LEARNING_RATE)
    charts = []
    for title, group in groups.items():
        figure, axes = _figure(3.6, 2.2)
        lines: dict[bytes, list[str]] = {}
        series = {name: _series(training, name) for name in group}
        for name, points in series.items():
            lines.setdefault(np.stack(points).tobytes(), []).append(name)
        legend, described = [], []
        for same, colour in zip(lines.values(), _cycle(COLOURS, len(lines)), strict=True):
            steps, values = series[same[0]]
            axes.plot(steps, values, color=colour, linewidth=1.3)
            legend.append((", ".join(name.removeprefix(title).removeprefix("lr/") for name in same), colour))
            described.append(f"{', '.join(same)} from {values[0]:.4g} to {values[-1]:.4g}")
        note = "".join(meanings([title]).values())
        alt = f"Curve over steps: {'; '.join(described)}"
        shown = legend if len(group) > 1 or title.endswith("/") else []
        charts.append(Chart(title.rstrip("/"), note, shown, alt, _svg(figure)))
    return charts


LEARNING_RATE = "learning rate"


def _group(name: str) -> str:
    """fool/main -> fool/; source -> source."""
    if name == "lr" or name.startswith("lr/"):
        return LEARNING_RATE
    return name[: name.rfind("/") + 1] or name


def snapshot_curve(measured: Snapshots) -> Chart:
    """mIoU of a run's snapshots over steps, with its last checkpoint and with the oracle's choice marked."""
    figure, axes = _figure(7.2, 2.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    mious = measured.mious()
    axes.plot(
        list(mious), [100 * miou for miou in mious.values()], color=COLOURS[0], linewidth=1.3, marker="o", markersize=3
    )
    marks = {LAST: (measured.last, COLOURS[0], "o", 7), ORACLE: (measured.best, COLOURS[1], "*", 12)}
    for step, colour, marker, size in marks.values():
        axes.plot([step], [100 * mious[step]], color=colour, marker=marker, markersize=size, linestyle="none")
    said = [f"step {step}: {percent(miou)}" for step, miou in mious.items()]
    said += [f"{words}: step {mark[0]}" for words, mark in marks.items()]
    legend = [(words, mark[1]) for words, mark in marks.items()]
    return Chart(
        f"mIoU of the {measured.weights}'s snapshots on {measured.data}, in %",
        "",
        legend,
        f"Curve: {'; '.join(said)}",
        _svg(figure),
    )


DOMAINS = {
    "source": "student's prediction of the source images",
    "target": "prediction of the target images",
    "mixed": "student's prediction of the mixed images",
}
"""Of which batches the log holds the entropy."""


def peaks(log: Sequence[dict[str, Any]], classes: int, level: float | None) -> list[Chart]:
    """A chart of the entropy's distribution over training for each domain in the log, see `draw_peaks`."""
    charts = []
    for domain, meaning in DOMAINS.items():
        figure, axes = _figure(3.6, 2.4)
        said = draw_peaks(axes, log, domain, classes, level)
        if not said:
            continue
        legend = [("mean", COLOURS[1]), ("median, 5 % and 95 %", COLOURS[2])]
        if level is not None and domain == LEVELLED:
            legend.append((f"level {level:g}", COLOURS[5]))
        note = f"nats, of the {meaning}; the stronger the colour, the more pixels"
        alt = f"Histogram over steps with curves: {'; '.join(said)}"
        charts.append(Chart(f"entropy, {domain}", note, legend, alt, _svg(figure)))
    return charts


LEVELLED = "mixed"
"""Whose entropy a balance loss pulls to its level."""


def draw_peaks(axes: Axes, log: Sequence[dict[str, Any]], domain: str, classes: int, level: float | None) -> list[str]:
    """The entropy's distribution in one domain over training: where it peaks, and where not. What was drawn, in words;
    nothing where the log has fewer than two lines of it.

    Across: steps. Up: H in nats, 0 to ln C. The stronger the colour, the more pixels: the share of a step's pixels
    against its largest, and its square root, so that the rare ones are seen. On it the mean, the median and the middle
    90 %, and on the mixed images the level that a balance loss pulls them to.
    """
    lines = [line for line in log if f"histogram/{domain}" in line]
    if len(lines) < 2:
        return []
    steps = _in_groups(np.array([line["step"] for line in lines], np.float64))
    shares = _in_groups(np.array([line[f"histogram/{domain}"] for line in lines], np.float64))
    top = math.log(classes)
    axes.imshow(
        np.sqrt(shares / shares.max(1, keepdims=True)).T,
        extent=(steps[0], steps[-1], 0, top),
        origin="lower", aspect="auto", cmap=SHADES, vmin=0, vmax=1, interpolation="nearest",
    )  # fmt: skip
    axes.grid(visible=False)
    drawn = {"mean": ("", "-", COLOURS[1]), "median": ("/q50", "-", COLOURS[2])}
    drawn |= {"5 %": ("/q05", ":", COLOURS[2]), "95 %": ("/q95", ":", COLOURS[2])}
    said = []
    for name, (ending, style, colour) in drawn.items():
        _, values = _series(lines, f"H/{domain}{ending}")
        axes.plot(steps, values, color=colour, linestyle=style, linewidth=1.2)
        said.append(f"{name} from {values[0]:.2f} to {values[-1]:.2f}")
    if level is not None and domain == LEVELLED:
        axes.axhline(level, color=COLOURS[5], linewidth=1, linestyle="--")
    axes.set_ylim(0, top)
    return said


SHADES = LinearSegmentedColormap.from_list("shades", [(0.23, 0.51, 0.84, 0), (0.23, 0.51, 0.84, 1)])
"""From nothing to blue: legible on white and on near-black."""


def scored(log: Sequence[dict[str, Any]]) -> list[Chart]:
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
    points = _in_groups(points.reshape(-1, 2))
    return points[:, 0], points[:, 1]


def _in_groups(rows: np.ndarray) -> np.ndarray:
    """The rows, or the means of POINTS groups of them where there are more."""
    return np.array([group.mean(0) for group in np.array_split(rows, POINTS)]) if len(rows) > POINTS else rows


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
    rules = matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "segda", "text.parse_math": False})
    with rules, warnings.catch_warnings():
        # Of the font that places are measured by; the page's own may have the sign.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        # By itself matplotlib draws all twice, the first time for nothing but the places.
        layout = figure.get_layout_engine()
        assert layout is not None
        layout.execute(figure)
        figure.set_layout_engine("none")
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
