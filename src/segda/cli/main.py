"""The command line: Typer over the functions in `commands/`. Our errors become one line and an exit code.

0 done, 1 failed, 2 the user's mistake, 130 interrupted. torch is imported inside the commands: `--help` is quick.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from segda.cli import present
from segda.cli.signature import Present, command_of
from segda.commands.adapt import adapt
from segda.commands.benchmark import benchmark
from segda.commands.check_data import check_data
from segda.commands.compare import compare
from segda.commands.convert import convert
from segda.commands.draw import draw
from segda.commands.evaluate import evaluate_runs
from segda.commands.export import export
from segda.commands.init import init
from segda.commands.list import list_
from segda.commands.make_fog import make_fog
from segda.commands.make_rain import make_rain
from segda.commands.predict import predict
from segda.commands.prepare import prepare
from segda.commands.pseudo_label import pseudo_label
from segda.commands.push import push
from segda.commands.recipe import recipe
from segda.commands.report import report
from segda.commands.select import select
from segda.commands.serve import serve
from segda.commands.sweep import sweep
from segda.commands.train import train
from segda.commands.translate import translate
from segda.errors import Interrupted, RunError, RunFailure, SegdaError
from segda.ground.atomic import FAILURES
from segda.ground.memory import lacks_memory, out_of_memory
from segda.ground.output import GONE, enduring
from segda.ground.progress import shown
from segda.ground.safe_yaml import one_line
from segda.ground.speaking import complain, echo, mark_lines, spoken

COMMANDS: dict[str, tuple[Callable[..., Any], Present, dict[str, Any]]] = {
    "init": (init, present.begun, {}),
    "train": (train, present.trained, {}),
    "evaluate": (evaluate_runs, present.measured, {}),
    "predict": (predict, present.files, {"images": ()}),
    "export": (export, present.lines, {}),
    "push": (push, present.lines, {}),
    "benchmark": (benchmark, present.lines, {}),
    "serve": (serve, present.nothing, {}),
    "pseudo-label": (pseudo_label, present.labelled, {}),
    "translate": (translate, present.translated, {}),
    "compare": (compare, present.compared, {}),
    "sweep": (sweep, present.swept, {}),
    "select": (select, present.selected, {}),
    "adapt": (adapt, present.adapted, {}),
    "report": (report, present.place, {}),
    "list": (list_, present.show, {}),
    "recipe": (recipe, present.recipe_text, {}),
    "check-data": (check_data, present.inspected, {"out": Path("check-data")}),
    "convert": (convert, present.lines, {}),
    "draw": (draw, present.files, {}),
    "prepare": (prepare, present.lines, {}),
    "make-fog": (make_fog, present.lines, {}),
    "make-rain": (make_rain, present.lines, {"pattern": (1,)}),
}
"""Name -> the function, what shows its result, and what it is given where the command line says nothing."""

SHARED = ("train", "evaluate", "predict", "pseudo-label", "translate")
"""The commands that run in several processes, started by torchrun."""

PRINTED = ("list", "recipe", "compare", "evaluate", "select", "adapt", "check-data")
"""The commands whose result is what they print: it is a failure where that cannot be written."""

app = typer.Typer(
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Adapt segmentation networks from a labelled domain to an unlabelled one, and prove what it gained.",
    epilog="First steps: segda list recipes; segda train ebda_streets --out runs/ebda; segda compare runs/*",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        echo(f"segda {version('segda')}")
        raise typer.Exit


@app.callback()
def _global(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    global _debug, _command
    _debug, _command = debug, context.invoked_subcommand
    if os.environ.get("WORLD_SIZE", "1") != "1" and context.invoked_subcommand not in SHARED:
        raise SegdaError(f"{context.invoked_subcommand} runs in one process; leave out torchrun")


_debug = False
_command: str | None = None
_arguments: list[str] = []


class _Stopped(SegdaError):
    """A training or a sweep that was asked to stop, as one line; Typer would take an Interrupted for a mere Ctrl-C."""

    def __init__(self, stop: Interrupted):
        """With the command that goes on: that is --resume, but for a run that was to be overwritten and never was."""
        words = [word for word in _arguments if word != "--overwrite" or not stop.saved]
        words += ["--resume"] * (_command != "sweep" and not {"--resume", "--overwrite"} & set(words))
        program = ["python", "-m", "segda"] if Path(sys.argv[0]).name == "__main__.py" else ["segda"]
        several = "by torchrun as before, " * (os.environ.get("WORLD_SIZE", "1") != "1")
        super().__init__(f"{stop}; go on with: {several}{shlex.join([*program, *words])}")
        self.exit_code = stop.exit_code  # type: ignore[misc]  # of this one, by its signal


def _exits(command: Callable[..., int]) -> Callable[..., None]:
    """The command, leaving with the exit code that it gives."""

    @wraps(command)
    def run(**given: Any) -> None:
        try:
            mark_lines(given.get("label"))
            if _command == "train":
                from segda.commands.names import look_up_recipe

                look_up_recipe(given["recipe"], given["data"])
                from segda.ground.hardware import keep_memory

                keep_memory()
            code = command(**given)
        except Interrupted as stop:
            if os.environ.get("RANK", "0") != "0":
                raise typer.Exit(stop.exit_code) from None
            raise _Stopped(stop) from None
        raise typer.Exit(code)

    return run


for _name, (_function, _present, _usual) in COMMANDS.items():
    app.command(_name)(_exits(command_of(_function, _present, **_usual)))


UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Typer's own base class of all mistakes in a command line; it gives it no public name."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line and returns the exit code; our errors are one line on standard error.

    Where standard output cannot be written (any more), work goes on; a command whose result it is has failed then.
    """
    global _arguments, _command
    _arguments, _command = sys.argv[1:] if arguments is None else arguments, None
    with enduring(_without_output) as output:
        code = _run()
        output.flush()
        if code == 0 and output.fault is not None and _prints_its_result():
            if output.fault != GONE:
                complain(f"cannot write standard output: {output.fault}")
            code = 1
    return code


def _prints_its_result() -> bool:
    return _command in (None, *PRINTED) or not {"--help", "--dry-run"}.isdisjoint(_arguments)


def _without_output(fault: str) -> None:
    if not _prints_its_result():
        complain(f"warning: standard output cannot be written any more ({fault}); the work goes on without it")


def _run() -> int:
    try:
        with spoken(), shown():
            code = app(args=_arguments or ["--help"], standalone_mode=False)
    except SegdaError as error:
        # One that failed says why; what was refused may be as it should be, and too large.
        return _failed(error if isinstance(error, RunFailure) else _memory_said(error) or error)
    except typer.Exit as exit_:
        code = exit_.exit_code
    except UsageError as error:
        return _usage(error)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        known = _memory_said(error) or _of_a_path(error)
        if known is None:
            traceback.print_exc()
        return _failed(known or error)
    if code == 130 and os.environ.get("RANK", "0") == "0":
        complain(
            "interrupted; a run goes on with --resume; make-fog, make-rain, prepare, pseudo-label, translate and "
            "sweep when called again"
        )
    return code if isinstance(code, int) else 0


def _memory_said(error: Exception) -> SegdaError | None:
    """What to say in place of an error that is want of memory."""
    if not lacks_memory(error):
        return None
    traceback.clear_frames(error.__traceback__)  # what they hold may be all that there was
    said = RunFailure(out_of_memory(_command))
    said.__cause__ = error
    return said


def _of_a_path(error: Exception) -> SegdaError | None:
    """What to say in place of an error of the system about a path: its name is too long, its folder cannot be read."""
    if not isinstance(error, OSError) or error.filename is None or error.strerror is None:
        return None
    kind = RunFailure if error.errno in FAILURES else RunError
    said = kind(f"{error.filename}: {error.strerror}; choose another path, or look at its permissions")
    said.__cause__ = error
    return said


def _failed(error: Exception) -> int:
    if _debug:
        traceback.print_exception(error)
    if _speaks():
        complain(one_line(error))
    return error.exit_code if isinstance(error, SegdaError) else 1


def _speaks() -> bool:
    """Of several processes on one machine, the first: before they have joined, all meet the same mistakes."""
    processes = sys.modules.get("segda.distributed.group")
    return os.environ.get("LOCAL_RANK", "0") == "0" or (processes is not None and processes.met)


OLD_OPTIONS = {"--stages": "a recipe's stages run by themselves; leave it out"}
"""Options of earlier versions, and what to do without them."""


def _usage(error) -> int:
    where = f" ({error.ctx.command_path} --help)" if error.ctx else ""
    message = " ".join(error.format_message().split()).replace("Value error, ", "")
    message = next((f"{old}: {way}" for old, way in OLD_OPTIONS.items() if f"option: {old}" in message), message)
    if _speaks():
        complain(f"{message}{where}")
    return 2
