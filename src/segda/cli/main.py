"""The command line: Typer over the functions in `commands/`. Our errors become one line and an exit code.

0 done, 1 failed, 2 the user's mistake, 130 interrupted. torch is imported inside the commands: `--help` is quick.
"""

from __future__ import annotations

import json as json_format
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.cli import files
from segda.cli.options import (
    CheckOption,
    DataFileOption,
    Device,
    DeviceOption,
    Ids,
    MaxBatchOption,
    Mean,
    OwnDevice,
    OwnPrecision,
    Precision,
    PrecisionOption,
    RootOption,
    RunArgument,
    StepOption,
    Weights,
    echo,
    show,
)
from segda.errors import Interrupted, SegdaError, visible
from segda.ground.progress import shown
from segda.ground.safe_yaml import one_line
from segda.ground.speaking import spoken

if TYPE_CHECKING:
    from segda.recipes.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Adapt segmentation networks from a labelled domain to an unlabelled one, and prove what it gained.",
    epilog="First steps: segda list recipes; segda train ebda_streets --out runs/ebda; segda compare runs/*",
)


SHARED = ("train", "evaluate", "predict", "pseudo-label")
"""The commands that run in several processes, started by torchrun."""


@app.callback()
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
) -> None:
    global _debug
    _debug = debug
    if os.environ.get("WORLD_SIZE", "1") != "1" and context.invoked_subcommand not in SHARED:
        raise SegdaError(f"{context.invoked_subcommand} runs in one process; leave out torchrun")


_debug = False
_arguments: list[str] = []


class _Stopped(SegdaError):
    """A training that was asked to stop, as one line; Typer would take an Interrupted for a mere Ctrl-C."""

    def __init__(self, stop: Interrupted):
        """With the command that goes on: that is --resume, but for a run that was to be overwritten and never was."""
        words = [word for word in _arguments if word != "--overwrite" or not stop.saved]
        words += ["--resume"] * (not {"--resume", "--overwrite"} & set(words))
        program = ["python", "-m", "segda"] if Path(sys.argv[0]).name == "__main__.py" else ["segda"]
        several = "by torchrun as before, " * (os.environ.get("WORLD_SIZE", "1") != "1")
        super().__init__(f"{stop}; go on with: {several}{shlex.join([*program, *words])}")
        self.exit_code = stop.exit_code


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A shipped recipe (segda list recipes), a YAML file, or blocks with + between them."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Run folder to write [default: runs/RECIPE].")] = None,
    data: DataFileOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change one key, e.g. optim.lr=1e-4. Repeatable."),
    ] = None,
    root: RootOption = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from OUT's last checkpoint; begin where there is none.")
    ] = False,
    allow_changed: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Resume though this key of the recipe is another now. Repeatable."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in an OUT that holds a run.")] = False,
    check: CheckOption = False,
    max_batch: MaxBatchOption = False,
    device: OwnDevice = None,
    precision: OwnPrecision = None,
) -> None:
    """Train a network by RECIPE and write everything about it to a run folder.

    The recipe is checked, the data sets are found and the network is built before the folder is touched. At the end the
    run is scored on the recipe's evaluate.data, and report.html shows what happened. A recipe of several stages runs
    them all: OUT-STAGE beside OUT for each but the last; what is there is skipped, what was cut short goes on.
    """
    from segda.commands.train import train as run
    from segda.recipes.blocks import short_name
    from segda.recipes.recipe import load_recipe

    changes = list(settings or [])
    changes += [f"{key}='{value}'" for key, value in (("device", device), ("precision", precision)) if value]
    loaded: Recipe = load_recipe(recipe, data)
    loaded = loaded.override(*changes) if changes else loaded
    try:
        run(
            loaded, out or Path("runs") / short_name(recipe, data), root, resume=resume, overwrite=overwrite,
            check=check, allow_changed=allow_changed or (), max_batch=max_batch,
        )  # fmt: skip
    except Interrupted as stop:
        if os.environ.get("RANK", "0") != "0":
            raise typer.Exit(stop.exit_code) from None
        raise _Stopped(stop) from None


@app.command()
def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders: the --out of `segda train`.")],
    data: Annotated[
        list[str], typer.Option("--data", metavar="NAME:SPLIT[:CONDITION]", help="Labelled data. Repeatable.")
    ],
    root: RootOption = None,
    weights: Annotated[
        list[Weights] | None,
        typer.Option(help="Whose weights [default: student and, where there is one, teacher]."),
    ] = None,
    ensemble: Annotated[
        Mean | None, typer.Option(help="Measure the RUNs as one: the mean of their networks' logits or probabilities.")
    ] = None,
    shares: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Each RUN's share in the ensemble [default: equal ones].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Where to write the ensemble's report [default: nowhere].")
    ] = None,
    all_checkpoints: Annotated[
        bool, typer.Option("--all-checkpoints", help="Measure every snapshot (recipe key keep_every).")
    ] = False,
    step: StepOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Measure runs on labelled data: IoU of each class, mIoU, accuracy, with the protocol beside the numbers.

    Several RUNs are measured one after the other, or with --ensemble as one. Reports go to each RUN's reports folder;
    those of an ensemble, which is no run, to --out.
    """
    from segda.commands.evaluate import run_command
    from segda.distributed.group import rank
    from segda.evaluation.measure import STUDENT_AND_TEACHER

    found, plain = run_command(
        runs, data, root, tuple(map(str, weights or ())) or STUDENT_AND_TEACHER, ensemble and str(ensemble), shares,
        out, all_checkpoints, str(device), str(precision), step,
    )  # fmt: skip
    if rank() != 0:
        return
    if json:
        echo(json_format.dumps(plain, indent=1))
    else:
        for table in found:
            show(table)


@app.command()
def predict(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="Folder for the results, or the archive of a submission.")],
    images: Annotated[
        list[Path] | None, typer.Argument(metavar="IMAGES...", help="Image files or folders of them; or --data.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", metavar="NAME:SPLIT[:CONDITION]", help="A data set; labels are not needed.")
    ] = None,
    root: RootOption = None,
    submission: Annotated[
        str | None,
        typer.Option(
            metavar="SERVER",
            help="Make OUT the zip for a test server: cityscapes, acdc or dark-zurich; see docs/COMMANDS.md.",
        ),
    ] = None,
    ids: Annotated[Ids | None, typer.Option(help="Train ids or Cityscapes' label ids [default: train].")] = None,
    colour: Annotated[bool, typer.Option("--colour", help="Also write each class in its colour.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="Also write the colours over the image.")] = False,
    opacity: Annotated[
        float | None, typer.Option(metavar="0..1", help="Of the overlay's colours [default: 0.5].")
    ] = None,
    entropy: Annotated[bool, typer.Option("--entropy", help="Also write a map of the network's uncertainty.")] = False,
    weights: Annotated[Weights, typer.Option(help="Whose weights.")] = Weights.student,
    step: StepOption = None,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Label images: one PNG of ids an image, and pictures of it if you ask for them; or a submission to a test server.

    How an image is shown to the network (size, windows, scales, mirrored or not) is as in RUN's recipe: evaluate.*.
    """
    from segda.commands.predict import predict as label
    from segda.distributed.group import rank

    written = label(
        run, images or (), out, str(weights), colour, overlay, entropy, str(device), str(precision), data=data,
        root=root, ids=ids and str(ids), opacity=opacity, submission=submission, step=step,
    )  # fmt: skip
    if rank() == 0:
        echo(f"{len(written)} files in {out}" if submission is None else str(out))


@app.command("pseudo-label")
def pseudo_label(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; of several, the mean counts.")],
    rule: Annotated[
        str, typer.Option(help="entropy-median (ESL), class-median (BDL), quantile (FDA) or fixed; see rules.yaml.")
    ],
    data: Annotated[str, typer.Option(metavar="NAME:SPLIT[:CONDITION]", help="The images to label.")],
    out: Annotated[Path, typer.Option(help="Folder for the labels; a later `segda train` reads it.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the rule, e.g. floor=0.2. Repeatable."),
    ] = None,
    root: RootOption = None,
    weights: Annotated[Weights, typer.Option(help="Whose weights.")] = Weights.student,
    step: StepOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin anew in an OUT that holds labels.")] = False,
    score: Annotated[
        bool,
        typer.Option("--score", help="When all is written, compare with the true labels; for the report only."),
    ] = False,
    device: DeviceOption = Device.auto,
    precision: PrecisionOption = Precision.auto,
) -> None:
    """Label the images of a data set where RUN's network is sure of them: stage two of self-training.

    One PNG of train ids an image, with 255 where the rule keeps no label, a summary and a contact sheet. Memory does
    not grow with the number of images; scratch files on disk do, and are removed at the end. A call that was
    interrupted goes on when it is repeated. Also under torchrun; with the same OMP_NUM_THREADS, the result is the same
    to the bit.
    """
    from segda.commands.pseudo_label import pseudo_label as label
    from segda.distributed.group import rank
    from segda.reporting.tables import pseudo_labels_table

    summary = label(
        runs, data, rule, out, settings or (), root, str(weights), str(device), str(precision), overwrite=overwrite,
        score=score, step=step,
    )  # fmt: skip
    if rank() == 0:
        show(pseudo_labels_table(summary))
        echo(f"{summary['images']} labels in {out}")


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders with reports.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a terminal table.")] = False,
    seeds: Annotated[bool, typer.Option("--seeds", help="Mean ± deviation of runs that differ in the seed.")] = False,
    weights: Annotated[Weights | None, typer.Option(help="Whose numbers [default: all that there are].")] = None,
    step: StepOption = None,
) -> None:
    """One table of several runs: classes down, runs across, the best of each row marked."""
    from segda.commands.compare import compare as put_beside

    comparison = put_beside(runs, seeds, weights and str(weights), step)
    if markdown:
        echo(comparison.markdown())
    else:
        show(comparison.table())


@app.command()
def sweep(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A YAML file of axes, or a shipped one's name.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run folders [default: the file's].")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change one KEY=VALUE in all runs.")] = None,
    root: RootOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the runs' commands; start none.")] = False,
    device: OwnDevice = None,
    precision: OwnPrecision = None,
) -> None:
    """Train every combination of FILE's recipes, seeds and settings, and compare their means over the seeds.

    All is checked before the first run begins. A run that fails stops no other; the exit code is 1 then. Called again,
    it skips what is finished and goes on with what is not.
    """
    from segda.commands.sweep import sweep as train_all
    from segda.training.sweep import plan, script

    given = (file, out, settings or (), root, device and str(device), precision and str(precision))
    if dry_run:
        return print("\n".join(script(plan(*given))))
    outcome = train_all(*given)
    if (comparison := outcome.comparison()) is not None:
        show(comparison.table())
    for run, reason in outcome.failed.items():
        print(f"segda: {run} failed: {reason}", file=sys.stderr)
    raise typer.Exit(1 if outcome.failed else 0)


@app.command()
def report(
    run: RunArgument,
    against: Annotated[Path | None, typer.Option(help="A source-only run to show beside it.")] = None,
    root: RootOption = None,
    weights: Annotated[Weights, typer.Option(help="Whose pictures.")] = Weights.student,
    step: StepOption = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Make RUN/report.html: curves, IoU bars and pictures in one self-contained file."""
    from segda.commands.report import report as write

    echo(str(write(run, against, str(device), root, str(weights), step)))


app.add_typer(files.app)


UsageError = typer.BadParameter.__mro__[1]
"""Typer's own base class of all mistakes in a command line; it gives it no public name."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code; our errors are one line on standard error."""
    global _arguments
    _arguments = sys.argv[1:] if arguments is None else arguments
    try:
        with spoken(), shown():
            code = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except SegdaError as error:
        return _failed(error, error.exit_code)
    except typer.Exit as exit_:
        code = exit_.exit_code
    except UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, e.g. `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        traceback.print_exc()
        return _failed(error, 1)
    if code == 130 and os.environ.get("RANK", "0") == "0":
        print(
            "segda: interrupted; a run goes on with --resume; make-fog, make-rain, prepare, pseudo-label and sweep "
            "when called again",
            file=sys.stderr,
        )
    return code if isinstance(code, int) else 0


def _failed(error: Exception, code: int) -> int:
    if _debug:
        traceback.print_exception(error)
    message = visible(one_line(error))
    if _speaks():
        print(f"segda: {message}", file=sys.stderr)
    return code


def _speaks() -> bool:
    """Of several processes on one machine, the first: before they have joined, all meet the same mistakes."""
    processes = sys.modules.get("segda.distributed.group")
    return os.environ.get("LOCAL_RANK", "0") == "0" or (processes is not None and processes.met)


OLD_OPTIONS = {"--stages": "a recipe's stages run by themselves; leave it out"}
"""Options of earlier versions, and what to do without them."""


def _usage(error) -> int:
    where = f" ({error.ctx.command_path} --help)" if error.ctx else ""
    message = visible(" ".join(error.format_message().split()).replace("Value error, ", ""))
    message = next((f"{old}: {way}" for old, way in OLD_OPTIONS.items() if f"option: {old}" in message), message)
    if _speaks():
        print(f"segda: {message}{where}", file=sys.stderr)
    return 2
