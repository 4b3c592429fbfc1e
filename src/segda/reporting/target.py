"""The target on a report's page: pictures and numbers that need no label."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from segda.data.sets.datasets import open_data
from segda.errors import visible
from segda.evaluation.look import Eye
from segda.evaluation.measure import has_network
from segda.ground.choices import DeviceName, Weights
from segda.ground.hardware import autocast, pick_device, pick_precision
from segda.ground.safe_yaml import first_line
from segda.recipes.recipe import Recipe
from segda.reporting.pictures import data_uri, shrunk
from segda.reporting.tables import percent
from segda.reporting.watched import (
    IMAGES,
    PICTURE,
    Moment,
    Readable,
    is_no_obstacle,
    observe,
    pictures,
    read_watched,
    readable,
)
from segda.run import data_root, load_network, load_recipe_of, step_of
from segda.run_data import seen_from_here, space_in

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Column:
    """One picture of each image."""

    title: str
    pictures: Sequence[np.ndarray]
    flat: bool
    """Class colours: kept exactly."""


def target_of(
    run: Path,
    against: Path | None,
    recipe: Recipe,
    root: Path | None,
    device: DeviceName,
    weights: Weights,
    step: int | None,
) -> dict[str, Any] | None:
    """What the page says of the target: of a run as it learnt, or of the network that weights and step name.

    Read from the run folder where it is there, else seen now. None where neither can be, or the recipe wants no
    pictures, or there is no network.
    """
    if not recipe.evaluate.report_images or not has_network(run, weights, step):
        return None
    stored = read_watched(run) if weights == "student" and step is None else None
    if stored is not None and stored.moments:
        data, names, moments, source = stored.data, stored.names, list(stored.moments), stored.source
        count = range(len(names))
        images = [next(pictures(run, k)) for k in count]
        told = [[list(pictures(run, k, moment.step)) for k in count] for moment in moments]
    else:
        now = _now(run, recipe, root, device, weights, step)
        if now is None:
            return None
        shown, moment = now
        data, moments, source = shown.data.spec, [moment], None
        names = tuple(shown.data.names[i] for i in shown.numbers)
        images = [shrunk(shown.read(k).image.permute(1, 2, 0).numpy(), PICTURE, flat=False) for k in range(len(shown))]
        told = [[list(one) for one in moment.pictures]]
    columns = [Column("image", images, flat=False)]
    if against is not None and (before := _before(against, data, names, root, device)) is not None:
        columns.append(Column(visible(against.resolve().name), before, flat=True))
    titles = [f"step {moment.step}" for moment in moments]
    columns += [Column(title, [one[0] for one in of], flat=True) for title, of in zip(titles, told, strict=True)]
    columns.append(Column(f"entropy, {titles[-1]}", [one[1] for one in told[-1]], flat=False))
    classes = list(moments[-1].shares)
    return {
        "data": data,
        "panel": {
            "columns": [column.title for column in columns],
            "rows": [{"name": name, "cells": [_cell(column, k) for column in columns]} for k, name in enumerate(names)],
        },
        "titles": titles,
        "rows": [
            ("mean entropy (nats)", "", [f"{moment.entropy:.2f}" for moment in moments]),
            ("confident pixels (%)", "", [percent(moment.confident) for moment in moments]),
            *(
                (name, "" if source is None else percent(source[name]), [percent(one.shares[name]) for one in moments])
                for name in classes
            ),
        ],
        "source": source is not None,
    }


def _cell(column: Column, k: int) -> dict[str, str]:
    uri = data_uri(shrunk(column.pictures[k], PICTURE, flat=column.flat), "PNG" if column.flat else "JPEG")
    return {"title": column.title, "uri": uri, "note": ""}


def _now(
    run: Path, recipe: Recipe, root: Path | None, device: DeviceName, weights: Weights, step: int | None
) -> tuple[Readable, Moment] | None:
    """The target's images and what a network says of them; None, and a line that says why, where they are not there or
    the network cannot be shown them.
    """
    try:
        data = open_data(seen_from_here(run, recipe.data.target.set), data_root(recipe, root), space_in(run))
        images = Readable(data, readable(data, min(IMAGES, recipe.evaluate.report_images)))
        if not len(images):
            return None
        where = pick_device(device)
        casting = autocast(where, pick_precision("auto", where))
        eye = Eye(load_network(run, weights, where, step), recipe.evaluate, where, casting)
        return images, observe(eye, images, (step_of(run, weights) if step is None else step) or 0)
    except Exception as error:
        if not is_no_obstacle(error):
            raise
        log.warning(f"the target is not shown: {first_line(error)}")
        return None


def _before(
    run: Path, data: str, names: Sequence[str], root: Path | None, device: DeviceName
) -> list[np.ndarray] | None:
    """What another run said in the end of the same images; None where it cannot be asked."""
    stored = read_watched(run)
    if stored is not None and stored.moments and (stored.data, stored.names) == (data, tuple(names)):
        return [next(pictures(run, k, stored.moments[-1].step)) for k in range(len(names))]
    now = _now(run, load_recipe_of(run), root, device, "student", None) if has_network(run, "student") else None
    if now is None:
        return None
    shown, moment = now
    if (shown.data.spec, tuple(shown.data.names[i] for i in shown.numbers)) != (data, tuple(names)):
        return None
    return [prediction for prediction, _ in moment.pictures]
