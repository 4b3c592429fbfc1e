"""`segda benchmark`: a run's network in every format, timed on this machine, see exporting/speed.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Root, Run, Step, Trust, Whose

if TYPE_CHECKING:
    from segda.exporting.speed import Speeds


def benchmark(
    run: Run,
    *,
    size: Annotated[
        str, typer.Option(metavar="WxH|own", help="The size of the images; own is as RUN's recipe shows them.")
    ] = "own",
    batch: Annotated[int, typer.Option(metavar="N", help="Images a call.")] = 1,
    calls: Annotated[
        int, typer.Option(metavar="N", help="How often each is timed, after two calls that warm up.")
    ] = 20,
    weights: Whose = "student",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME:SPLIT", help="The images; no label is read [default: RUN's target]."),
    ] = None,
    root: Root = None,
    step: Step = None,
    trust: Trust = (),
) -> Speeds:
    """Time RUN's network on this processor: PyTorch, ONNX and OpenVINO, in float32, and OpenVINO in eight bits.

    Each is called in turn with the same images, so that all meet the same machine. The table is Markdown: the median of
    the calls, the least and the most, images a second, and how many times as fast as PyTorch in float32. Formats whose
    libraries are not installed are left out, and said.
    """
    from segda.commands.names import look_up_runs

    look_up_runs([run])

    from segda.exporting.job import benchmark_run
    from segda.ground.trust import trusting

    with trusting(trust):
        return benchmark_run(Path(run), size, batch, calls, weights, data, root, step)
