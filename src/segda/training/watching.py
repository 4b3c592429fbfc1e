"""When a training looks at its target, and what it then logs and keeps; see reporting/watched.py.

Nothing of it is drawn at random, and nothing of the training changes by it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from segda.distributed import group, sharding
from segda.evaluation.look import Eye
from segda.ground.hardware import autocast
from segda.ground.safe_yaml import first_line
from segda.networks.network import Network
from segda.recipes.recipe import Recipe
from segda.reporting.watched import IMAGES, Readable, is_no_obstacle, keep, label_shares, observe, readable, shown
from segda.run import fill, product_path
from segda.training.assembly import Training, student_of

log = logging.getLogger(__name__)

SHORT = 20
"""Trainings of fewer steps are looked at in the end alone."""


def moments(recipe: Recipe) -> set[int]:
    """After these steps: a tenth, a half, all; the first two where a line of the log is due."""
    if recipe.steps < SHORT:
        return {recipe.steps}
    every = recipe.log_every
    early = (-(-max(1, aim) // every) * every for aim in (recipe.steps // 10, recipe.steps // 2))
    return {step for step in early if step < recipe.steps} | {recipe.steps}


class Watch:
    """Looks at the target of a training, in its first process."""

    def __init__(self, training: Training, run: Path):
        self.training, self.run = training, run
        self.moments = moments(training.recipe) if training.recipe.evaluate.report_images else set()

    def look(self) -> dict[str, float]:
        """What the log has of the target after this step; nothing where none is due."""
        training = self.training
        networks: dict[Any, Network] = training.segmenters()
        if training.t not in self.moments or not networks:
            return {}
        which = next(iter(networks))
        tensors = sharding.gather_full(networks[which].state_dict()) if training.sharded else None
        return group.from_rank_zero(lambda: self._look(networks[which], tensors))

    def look_again(self, network: Network) -> None:
        """At a network that the student was made to after this step, in place of what was seen of it before."""
        if self.training.t in self.moments:
            group.on_rank_zero(self._look, network, None)

    def _look(self, network: Network, tensors: Mapping[str, Tensor] | None) -> dict[str, float]:
        training = self.training
        recipe, t = training.recipe, training.t
        try:
            if not len(self.images):
                return {}
            if tensors is not None:
                network = student_of(recipe, self.images.data.space, fresh=False).to(training.device)
                fill(network, tensors, product_path(self.run, "student"))
            casting = autocast(training.device, training.precision)
            moment = observe(Eye(network, recipe.evaluate, training.device, casting), self.images, t)
            keep(self.run, self.images, moment, self.source)
            if training.logger is not None:
                training.logger.show(shown(self.images, moment), t)
        except Exception as error:
            if not is_no_obstacle(error):
                raise
            log.warning(f"the target was not looked at after step {t}: {first_line(error)}")
            return {}
        log.info(f"step {t}  {self.images.data.spec} (target)  {moment.sentence(self.source)}")
        return moment.numbers()

    @cached_property
    def images(self) -> Readable:
        """The same in each moment."""
        assert self.training.stream is not None
        data = self.training.stream.target
        return Readable(data, readable(data, min(IMAGES, self.training.recipe.evaluate.report_images)))

    @cached_property
    def source(self) -> dict[str, float] | None:
        """The classes' shares in its labels."""
        stream = self.training.stream
        return None if stream is None or stream.source is None else label_shares(stream.source)
