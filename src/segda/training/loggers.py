"""What a training says of itself, also to a tracker: TensorBoard, Weights & Biases or MLflow (recipe key `logger`).

The numbers are those of log.jsonl, which stays what a run is judged by; the pictures those of `watched/`, sent when
they are made. Each tracker is a package of its own that no run needs (pip install 'segda[tensorboard]'). A run that
goes on goes on there: its name with the tracker is kept in `logger.json`. Of several processes the first speaks.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from segda.distributed import group
from segda.errors import RecipeError, RunError, RunFailure
from segda.ground.atomic import write_text
from segda.ground.choices import LoggerName
from segda.ground.safe_yaml import one_line, read_json
from segda.recipes.recipe import Recipe

log = logging.getLogger(__name__)

NAME = "logger.json"


class Logger(Protocol):
    """Takes numbers by name, and pictures, (H, W, 3) uint8 RGB; is closed at the end."""

    def log(self, numbers: Mapping[str, float], step: int) -> None: ...

    def show(self, pictures: Mapping[str, np.ndarray], step: int) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard; of a run that goes on, what is after its step there is hidden."""

    def __init__(self, run: Path, recipe: Recipe, step: int):
        writer = import_module("torch.utils.tensorboard").SummaryWriter
        self.writer = writer(str(run / "tensorboard"), purge_step=step + 1)
        if step == 0:
            self.writer.add_text("recipe", f"```yaml\n{recipe.to_yaml()}\n```", 0)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, step)

    def show(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        for name, picture in pictures.items():
            self.writer.add_image(name, picture, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WandB:
    """A run of the project that $WANDB_PROJECT names; $WANDB_MODE=offline keeps all in RUN/wandb."""

    def __init__(self, run: Path, recipe: Recipe, step: int):
        self.wandb = import_module("wandb")
        known = _known(run, "wandb") if step else None
        self.run = self.wandb.init(
            dir=str(run), name=run.resolve().name, config=recipe.model_dump(mode="json"), id=known, resume="allow"
        )
        _remember(run, "wandb", self.run.id)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.run.log(dict(numbers), step=step)

    def show(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        self.run.log({name: self.wandb.Image(picture) for name, picture in pictures.items()}, step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """A run of the experiment that $MLFLOW_EXPERIMENT_NAME names, where $MLFLOW_TRACKING_URI says."""

    def __init__(self, run: Path, recipe: Recipe, step: int):
        self.mlflow = import_module("mlflow")
        known = _known(run, "mlflow") if step else None
        begun = self.mlflow.start_run(run_id=known, run_name=run.resolve().name)
        _remember(run, "mlflow", begun.info.run_id)
        if known is None:
            self.mlflow.log_dict(recipe.model_dump(mode="json"), "recipe.json")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        # Its store has a file a number, so that one cannot be called H/source where another is H/source/q05.
        self.mlflow.log_metrics({re.sub(r"[^\w. -]", ".", name): value for name, value in numbers.items()}, step=step)

    def show(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        for name, picture in pictures.items():
            self.mlflow.log_image(picture, key=name, step=step)

    def close(self) -> None:
        self.mlflow.end_run()


LOGGERS: dict[LoggerName, type[TensorBoard] | type[WandB] | type[MLflow]] = {
    "tensorboard": TensorBoard,
    "wandb": WandB,
    "mlflow": MLflow,
}


class Patient:
    """Tells a tracker, and no more of it when it fails: a training does not end because of that."""

    def __init__(self, name: LoggerName, logger: Logger):
        self.name, self.logger, self.failed = name, logger, False

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._try(lambda: self.logger.log(numbers, step))

    def show(self, pictures: Mapping[str, np.ndarray], step: int) -> None:
        self._try(lambda: self.logger.show(pictures, step))

    def close(self) -> None:
        self._try(self.logger.close)

    def _try(self, tell: Callable[[], None]) -> None:
        if self.failed:
            return
        try:
            tell()
        except Exception as error:  # whatever a tracker's client raises
            self.failed = True
            log.warning(f"logger {self.name}: {one_line(error)}; it is told no more, log.jsonl has all")


def check_logger(name: LoggerName | None) -> None:
    """RecipeError where the tracker's package is not installed."""
    if name is not None and find_spec(name) is None:
        raise RecipeError(f"logger: {name} is not installed; pip install 'segda[{name}]', or leave --logger out")


@contextmanager
def logger_of(recipe: Recipe, run: Path, step: int) -> Iterator[Logger | None]:
    """The recipe's logger for a training that stands after `step`; none in other processes than the first."""
    if recipe.logger is None or group.rank() != 0:
        yield None
        return
    try:
        logger = Patient(recipe.logger, LOGGERS[recipe.logger](run, recipe, step))
    except RunError:
        raise
    except Exception as error:  # whatever a tracker says when it is not reached, or nobody is logged in
        raise RunFailure(
            f"logger {recipe.logger}: {one_line(error)}; see its own settings, or leave --logger out"
        ) from error
    try:
        yield logger
    finally:
        logger.close()


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a line of the log; of scores `mIoU/DATA/student`. Histograms and nulls are left out."""
    data = line.get("evaluation")
    return {
        name if data is None else f"mIoU/{data}/{name}": float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float)
    }


def _known(run: Path, tracker: str) -> str | None:
    """By what name a tracker knows the run; None where it does not."""
    path = run / NAME
    if not path.exists():
        return None
    try:
        found = read_json(path).get(tracker)
        if found is not None and not isinstance(found, str):
            raise ValueError(f"{tracker} is no text")
        return found
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{path} cannot be read ({one_line(error)}); remove it to begin anew with {tracker}") from error


def _remember(run: Path, tracker: str, name: str) -> None:
    write_text(run / NAME, json.dumps({tracker: name}) + "\n")
