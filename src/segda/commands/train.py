"""`segda train`: a recipe becomes a run folder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from segda.commands.arguments import DataFile, OwnDevice, OwnPrecision, RecipeLike, Root, Settings, Trust
from segda.errors import RecipeError
from segda.ground.choices import LoggerName, PresetName, unknown_device

log = logging.getLogger(__name__)


def train(
    recipe: Annotated[
        RecipeLike,
        typer.Argument(
            metavar="RECIPE",
            help="A shipped recipe (segda list recipes), a YAML file, blocks with + between them, or a folder of segda "
            "init.",
        ),
    ],
    out: Annotated[Path | str | None, typer.Option(help="Run folder to write [default: runs/RECIPE].")] = None,
    root: Root = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from OUT's last checkpoint; begin where there is none.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in an OUT that holds a run.")] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Build all, take a few steps on real data, say what the run will take; write nothing."
        ),
    ] = False,
    allow_changed: Annotated[
        Sequence[str],
        typer.Option(metavar="KEY", help="Resume though this key of the recipe is another now. Repeatable."),
    ] = (),
    max_batch: Annotated[
        bool,
        typer.Option(
            "--max-batch",
            help="Say how many scenes a step fit in this machine's memory; reads no data, writes nothing.",
        ),
    ] = False,
    data: DataFile = None,
    preset: Annotated[
        PresetName | None,
        typer.Option(help="Of a recipe that `segda init` wrote: another length and network."),
    ] = None,
    settings: Settings = (),
    device: OwnDevice = None,
    precision: OwnPrecision = None,
    logger: Annotated[
        LoggerName | None, typer.Option(help="Also tell a tracker the numbers of log.jsonl [default: the recipe's].")
    ] = None,
    trust: Trust = (),
) -> None:
    """Train a network by RECIPE and write everything about it to the run folder OUT.

    The recipe is checked, the data sets are found and the network is built before the folder is touched. At the end the
    run is scored on the recipe's evaluate.data, and report.html shows what happened. A recipe of several stages runs
    them all: OUT-STAGE beside OUT for each but the last; what is there is skipped, what was cut short goes on.

    With --resume a run ends as if nothing had happened. Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 save all steps first,
    and say how to go on.
    """
    from segda.ground.trust import trusting
    from segda.recipes.blocks import short_name
    from segda.recipes.presets import preset as with_preset
    from segda.recipes.recipe import Recipe, load_recipe
    from segda.run import data_root
    from segda.training.max_batch import find_max_batch
    from segda.training.running import train_run
    from segda.training.stages import check_stages, plan, run_stages

    if not isinstance(recipe, Recipe):
        name = short_name(str(recipe), data)
        out = Path("runs") / (f"{name}-{preset}" if preset else name) if out is None else out
        recipe = load_recipe(recipe, data)
    elif data is not None:
        raise RecipeError(f"--data {data} belongs to blocks; a recipe that is loaded has its data")
    if out is None:
        raise RecipeError("--out: a recipe that is loaded has no name to call its folder by; give one")
    if device is not None and (wrong := unknown_device(device)):
        raise RecipeError(f"--device {device}: {wrong}")
    recipe = with_preset(recipe, preset) if preset else recipe
    changes = [
        f"{key}='{value}'" for key, value in (("device", device), ("precision", precision), ("logger", logger)) if value
    ]
    recipe = recipe.override(*settings, *changes) if settings or changes else recipe
    out = Path(out)
    planned = plan(recipe, out)
    if max_batch:
        if check or resume or overwrite or allow_changed:
            raise RecipeError("--max-batch trains nothing; leave out --check, --resume and --overwrite")
        with trusting(trust):
            for stage in planned:
                if stage.trains:
                    if len(planned) > 1:
                        log.info(f"stage {stage.name}")
                    find_max_batch(stage.recipe)
        return
    if resume and overwrite:
        raise RecipeError("--resume goes on, --overwrite begins anew; give one of them")
    if allow_changed and not resume:
        raise RecipeError("--allow-changed is about a run that goes on; it has no effect without --resume")
    if len(planned) > 1 and allow_changed:
        raise RecipeError("--allow-changed changes one run, and the recipe has stages; resume that of the stage")
    root = data_root(recipe, root).absolute()
    with trusting(trust):
        if check:
            check_stages(planned, root)
        elif len(planned) > 1:
            run_stages(planned, root, overwrite)
        else:
            train_run(planned[0].recipe, out, root, resume, overwrite, allow_changed)
