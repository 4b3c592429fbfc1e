"""`segda push`: a run's network as a model on the Hugging Face hub, see exporting/push.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segda.commands.arguments import Root, Run, Step, Trust, Whose

if TYPE_CHECKING:
    from segda.exporting.push import Pushed


def push(
    run: Run,
    repo: Annotated[str, typer.Argument(metavar="[OWNER/]NAME", help="The model on the hub; made if it is not there.")],
    *,
    private: Annotated[bool, typer.Option("--private", help="Nobody else sees a model that is made.")] = False,
    weights: Whose = "student",
    size: Annotated[
        str, typer.Option(metavar="any|WxH", help="The size of images, of a network that has to be told one.")
    ] = "any",
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME:SPLIT", help="Images to compare with [default: RUN's target]."),
    ] = None,
    root: Root = None,
    step: Step = None,
    trust: Trust = (),
) -> Pushed:
    """Put RUN's network on the Hugging Face hub, with a card that says what it is and what it scored.

    What is put there is what `segda export --to huggingface` writes, once it was compared with the network. Log in
    before: hf auth login, or HF_TOKEN. $HF_ENDPOINT names another hub.
    """
    from segda.commands.names import look_up_runs

    look_up_runs([run])

    from segda.exporting.push import push_run
    from segda.ground.trust import trusting

    with trusting(trust):
        return push_run(Path(run), repo, private, weights, data, root, size, step)
