"""`segda adapt`: a run's network adapts itself to a stream of images, one after the other, while it predicts them."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from segda.data.sets.dataset import DataSet
from segda.data.sets.given import images_in
from segda.data.sets.labelled import open_once
from segda.errors import RecipeError
from segda.evaluation.certainty import labels
from segda.evaluation.look import Eye, Sight, look
from segda.evaluation.measure import facts, protocol_of, report_of
from segda.evaluation.metrics import Confusion, Report
from segda.evaluation.soundness import refuse_bad
from segda.ground.alone import first_alone_in
from segda.ground.atomic import atomic_write
from segda.ground.choices import DeviceName, OnlineName, PrecisionName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.safe_yaml import yaml_values
from segda.online import ONLINE
from segda.online.online import Online
from segda.recipes.build import build, changed, check
from segda.reporting.pictures import palette_png
from segda.reporting.predictions import Planned, plan, refuse_others
from segda.run import data_root, load_network, load_recipe_of
from segda.run_data import measured_on, space_in

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapted:
    """What came of it.

    spec: the method and its settings. online: of all predictions, each made before the images after it were seen.
    before: of the run's network as it is, on the same images. Both None unless the labels were asked for.
    """

    run: Path
    data: str
    images: int
    spec: dict[str, Any]
    episodic: bool
    out: Path | None
    before: Report | None = None
    online: Report | None = None

    def to_json(self) -> dict[str, Any]:
        def rates(report: Report | None) -> dict[str, Any] | None:
            if report is None:
                return None
            iou = dict(zip(report.class_names, report.iou.tolist(), strict=True))
            known = {name: None if math.isnan(value) else value for name, value in iou.items()}
            return {"miou": None if math.isnan(report.miou) else report.miou, "iou": known}

        return {
            "run": str(self.run), "data": self.data, "images": self.images, "method": self.spec,
            "episodic": self.episodic, "out": None if self.out is None else str(self.out),
            "before": rates(self.before), "online": rates(self.online),
        }  # fmt: skip


def adapt_online(
    run: Path,
    data: str,
    method: OnlineName,
    settings: Sequence[str],
    episodic: bool,
    score: bool,
    out: Path | None,
    root: Path | None,
    weights: Weights,
    step: int | None,
    device: DeviceName,
    precision: PrecisionName,
    overwrite: bool,
) -> Adapted:
    """See commands/adapt.py, whose function this is."""
    if out is None and not score:
        raise RecipeError("nothing to do: give --out for the predictions, or --score to compare with the labels")
    if precision == "16":
        raise RecipeError("--precision 16: gradients would vanish in it; use bf16 or 32")
    recipe = load_recipe_of(run)
    place, space = data_root(recipe, root), space_in(run)
    spec = changed(method, yaml_values((files("segda.online") / "online.yaml").read_text()), settings, "--set")
    spec = check(ONLINE, spec, "--method", ("eye",))
    dataset = measured_on(run, data, place) if score else open_once(data, place, space)
    if score:
        refuse_bad([dataset])
    planned = [] if out is None else plan(images_in(data, place), out, ())
    refuse_others(planned, overwrite)
    where = pick_device(device)
    dtype = pick_precision(precision, where)
    network = load_network(run, weights, where, step)
    eye = Eye(network, recipe.evaluate, where, autocast(where, dtype))
    still = Eye(deepcopy(network), recipe.evaluate, where, autocast(where, dtype))
    online: Online = build(ONLINE, spec, "--method", eye=eye)
    title = f"{data} {method}"
    if out is None:
        before, adapted = _stream(online, still, dataset, [], space.palette(), episodic, score, title)
    else:
        with first_alone_in([out], "another process writes predictions to {folder}"):
            before, adapted = _stream(online, still, dataset, planned, space.palette(), episodic, score, title)
    told = Adapted(run, data, len(dataset), spec, episodic, out)
    if before is None or adapted is None:
        return told
    protocol = protocol_of(dataset, recipe.evaluate, **facts(run, weights, dtype, step))
    reports = (report_of(count.counts(), protocol, dataset) for count in (before, adapted))
    return Adapted(run, data, len(dataset), spec, episodic, out, *reports)


def _stream(
    online: Online,
    still: Eye,
    dataset: DataSet,
    planned: Sequence[Planned],
    palette: Any,
    episodic: bool,
    score: bool,
    title: str,
) -> tuple[Confusion | None, Confusion | None]:
    """All images in their order: predictions are written and, with `score`, counted, beside those of the network as it
    was; nothing else is kept of an image.
    """
    classes = len(dataset.space.classes)
    before, adapted = Confusion(classes, still.device), Confusion(classes, still.device)

    def each(sight: Sight) -> None:
        own = Sight(sight.index, sight.scene, sight.by_eye[:1])
        label = labels(online.told(own), sight.size)
        if episodic:  # the next image is shown when this one is through
            online.reset()
        if score:
            assert sight.scene.label is not None
            adapted.add(sight.scene.label, label)
            before.add(sight.scene.label, labels(sight.by_eye[1], sight.size))
        if planned:
            with atomic_write(planned[sight.index].files["label"]) as unfinished:
                unfinished.write_bytes(palette_png(label.cpu().numpy(), palette))

    eyes = [online.eye, *([still] if score else [])]
    for _ in look(eyes, dataset, each, title=title, label=score, split=False, gradients=True, at_rest=False):
        pass
    return (before, adapted) if score else (None, None)
