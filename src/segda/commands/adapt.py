"""`segda adapt`: a run's network adapts itself to a stream of images while it predicts them; see online/adapt.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Data, Device, Precision, Root, Run, Step, Trust, Whose
from segda.ground.choices import OnlineName

if TYPE_CHECKING:
    from segda.online.adapt import Adapted


def adapt(
    run: Run,
    data: Data,
    method: Annotated[OnlineName, typer.Option(help="TENT, CoTTA, or the statistics of batch norm alone.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each prediction there, as predict does.")
    ] = None,
    settings: Annotated[
        Sequence[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the method, e.g. lr=1e-4. Repeatable."),
    ] = (),
    root: Root = None,
    weights: Whose = "student",
    step: Step = None,
    device: Device = "auto",
    precision: Precision = "auto",
    *,
    episodic: Annotated[bool, typer.Option("--episodic", help="Begin anew with each image.")] = False,
    score: Annotated[
        bool, typer.Option("--score", help="Compare with the labels, beside the network as it is; for the table only.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Also replace files in DIR that segda predict did not write.")
    ] = False,
    trust: Trust = (),
) -> Adapted:
    """Adapt RUN's network on the way: to the images of a data set in their order, one at a time, without labels.

    Each image is predicted once, by what was learnt of those before it (and, as the method has it, of itself): so a
    camera's stream would be. RUN stays as it is. With --score the predictions are compared with the labels: the online
    mIoU, beside that of the network as it is. Memory does not grow with the number of images. The methods' settings and
    their sources stand in online/online.yaml.
    """
    from segda.commands.names import look_up_data, look_up_runs

    look_up_runs([run])
    look_up_data([data])

    from segda.ground.trust import trusting
    from segda.online.adapt import adapt_online

    with trusting(trust):
        return adapt_online(
            Path(run), data, method, settings, episodic, score, out, root, weights, step, device, precision, overwrite
        )
