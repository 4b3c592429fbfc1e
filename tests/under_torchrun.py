"""What a process does under torchrun in tests:

    torchrun ... tests/under_torchrun.py die PLAN ARGUMENT...     segda with the arguments; how it dies is in PLAN
    torchrun ... tests/under_torchrun.py mistakes                 one mistake after the other, in the folder it is in

PLAN is JSON: for each start the rank that is killed, what kills it ("call" of a function, or an audit event) and which
("segda.run:begin", or a part of the path), and at which time of it, from 1.
"""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager, redirect_stderr
from importlib import import_module
from itertools import count
from pathlib import Path
from unittest.mock import patch

import torch

from segda import run as runs
from segda.cli.main import main
from segda.distributed import group
from segda.training import assembly, step

NAN_OF = "files of the batch that is not finite.json"


def die(plan: list) -> None:
    """Arms what kills this process, if it is its turn."""
    start = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if start >= len(plan) or plan[start][0] != group.rank():
        return
    _, event, which, time = plan[start]
    times = count(1)

    def kill_in_time() -> None:
        if next(times) == time:
            os.kill(os.getpid(), signal.SIGKILL)

    def listen(name: str, given: tuple) -> None:
        if name == event and which in str(given[0]):
            kill_in_time()

    if event != "call":
        sys.addaudithook(listen)
        return
    module, _, name = which.partition(":")
    original = getattr(import_module(module), name)

    def called(*arguments, **settings):
        kill_in_time()
        return original(*arguments, **settings)

    setattr(import_module(module), name, called)


@contextmanager
def not_finite():
    """The second process's loss is not, in its third step; the files are noted."""
    original = step.backward

    def backward(method, batch, t, *rest):
        log = original(method, batch, t, *rest)
        if group.rank() == 1 and t == 2:
            Path(NAN_OF).write_text(json.dumps([*batch.source.names, *batch.target.names]))
            log["source"] = log["source"] * float("nan")
        return log

    with patch.object(step, "backward", backward):
        yield


@contextmanager
def another_start():
    original = assembly.assemble

    def assemble(*arguments):
        training = original(*arguments)
        training.method.student.classifiers["main"][1].bias.data += group.rank()
        return training

    with patch.object(assembly, "assemble", assemble):
        yield


@contextmanager
def another_teacher():
    """In the second process, from its fourth step on."""
    original = assembly.Training.step

    def changed(training, batches):
        if training.t == 3:
            training.method.parts.teacher.network.classifiers["main"][1].bias.data += group.rank()
        return original(training, batches)

    with patch.object(assembly.Training, "step", changed):
        yield


@contextmanager
def full_disk():
    """As far as a process can have one of its own: from the second checkpoint on, files stay below a megabyte."""
    original, times = runs.save_checkpoint, count()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_checkpoint(*arguments):
        if next(times):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
        original(*arguments)

    with patch.object(runs, "save_checkpoint", save_checkpoint):
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def as_it_is():
    yield


MISTAKES: dict[str, tuple[list[str], Callable]] = {
    "whole": (["mine.yaml", "--out", "whole"], as_it_is),
    "recipe": (["mime.yaml", "--out", "none"], as_it_is),
    "key": (["mine.yaml", "--out", "none", "--set", "optim.lrr=1"], as_it_is),
    "data": (["mine.yaml", "--out", "none", "--root", "nowhere"], as_it_is),
    "folder": (["mine.yaml", "--out", "whole"], as_it_is),
    "number": (["mine.yaml", "--out", "three", "--resume"], as_it_is),
    "number allowed": (["mine.yaml", "--out", "three", "--resume", "--allow-changed", "processes"], as_it_is),
    "image": (["mine.yaml", "--out", "image", "--root", "copy"], as_it_is),
    "loss": (["mine.yaml", "--out", "loss"], not_finite),
    "start": (["mine.yaml", "--out", "start"], another_start),
    "teacher": (["mine.yaml", "--out", "teacher"], another_teacher),
    "disk": (["mine.yaml", "--out", "disk"], full_disk),
}
"""Name -> arguments of `segda train`, and what is wrong beside them. What "three" holds is made of "whole"."""


def mistakes() -> None:
    ends = {}
    for name, (arguments, wrong) in MISTAKES.items():
        if name == "number" and group.rank() == 0:
            begun_by_three(Path("whole"), Path("three"))
        if name == "image" and group.rank() == 1:
            arguments = [*arguments[:-1], "broken"]  # as the second machine's copy of the data
        group.met = False
        with wrong(), redirect_stderr(io.StringIO()) as said:
            try:
                code = main(["train", *arguments])
            except SystemExit as left:
                code = left.code
        ends[name] = [code, said.getvalue()]
        with group.joined():
            pass
        if name == "whole":  # by now all is imported; each group ends with a collection, which need not go through it
            gc.freeze()
    Path(f"ends-{group.rank()}.json").write_text(json.dumps(ends))


def begun_by_three(whole: Path, out: Path) -> None:
    """A run that stands at the fourth step of the whole one, and says that three processes made it."""
    out.mkdir()
    (out / "recipe.yaml").write_bytes((whole / "recipe.yaml").read_bytes())
    state = torch.load(runs.checkpoint_path(whole, 4), weights_only=True)
    state["made_by"]["processes"] = 3
    runs.save_checkpoint(out, state, keep=0)
    lines = (whole / "log.jsonl").read_text().splitlines(keepends=True)
    (out / "log.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= 4))


if __name__ == "__main__":
    if sys.argv[1] == "mistakes":
        mistakes()
    else:
        die(json.loads(sys.argv[2]))
        sys.exit(main(sys.argv[3:]))
