"""Trainings and predictions whose memory runs out: do they end well, or say so in one line?

    python benchmarks/memory_failures.py RUNS [train] [predict] [--seed N]

Each run is a fork of a process that has imported all: CPython 3.11 was seen to spin in `_compile_bytecode` where memory
ended while a module was imported. It may have so many bytes more of address space (RLIMIT_AS) than it has then: RUNS
numbers, spread evenly over what a run needs that is left alone, from nothing to all of it.

survived: runs that came to their end with the files of one left alone; runs that ended with exit code 1 and one line on
standard error; and runs that a library ended, by a signal where it got no memory and did not look, or by its own exit
(the place that faulthandler knows is printed). The last two are called again without a limit, a training with --resume,
and must come to the same files; what a prediction left before must be whole. lost: all else, a traceback, another exit
code, half a file, other bytes. Exit code 1 if any is.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import hashlib
import os
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections import Counter
from itertools import dropwhile, takewhile
from pathlib import Path

import torch

import segda.reporting.predictions
import segda.training.stages  # noqa: F401 - what a command imports when it begins: here once, not in each child
from kills import SHRUNK, write_data
from segda.cli.main import main
from segda.ground.alone import LOCK
from segda.recipes.recipe import load_recipe
from segda.run import load_network
from segda.training import assembly

PATIENCE = 120.0
"""Seconds after which a run hangs."""
LOADER, LOADER_SAYS = 127, "cannot allocate memory for thread-local data: ABORT"
"""How glibc's loader ends a process that needs memory for a library."""
SURVIVED = ("ended", "said", "killed")
END_OF_PNG = b"IEND\xaeB`\x82"
STARTS = 8 << 20
"""Bytes that the first search of what a run needs begins with."""


def command(kind: str, out: Path) -> list[str]:
    if kind == "train":
        return ["train", "mine.yaml", "--root", "data", "--out", str(out)]
    return ["predict", "trained", "data/camvid/test", "--out", str(out), "--colour", "--entropy", "--device", "cpu"]


def size() -> int:
    """Bytes of address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


def run(words: list[str], room: int | None, said: Path) -> int | None:
    """The exit code of a command in a child with so much room; below 0 its signal, None where it hung."""
    child = os.fork()
    if child == 0:
        code = 70
        try:
            with said.open("w") as err, open(os.devnull, "w") as out:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
            os.setsid()
            faulthandler.enable(2)
            if room is not None:
                resource.setrlimit(resource.RLIMIT_AS, (size() + room, resource.RLIM_INFINITY))
            code = main(words)
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    watched = os.pidfd_open(child)
    ended = bool(select.select([watched], [], [], PATIENCE)[0])
    os.close(watched)
    if not ended:
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status) if ended else None


def digest(kind: str, out: Path) -> dict[str, str]:
    files = [out / "network.safetensors"] if kind == "train" else sorted(out.rglob("*"))
    return {str(file.relative_to(out)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def needed(kind: str, place: Path) -> int:
    """Bytes with which a run comes to its end, by doubling."""
    room = STARTS
    while run(command(kind, place / "tried"), room, place / "said") != 0:
        shutil.rmtree(place / "tried", ignore_errors=True)
        room *= 2
    shutil.rmtree(place / "tried")
    return room


def outcome(kind: str, place: Path, room: int, whole: dict[str, str]) -> str:
    """What became of a run with so much room: "ended", "said", "killed", or how it is lost."""
    out, said = place / "out", place / "said"
    shutil.rmtree(out, ignore_errors=True)
    code = run(command(kind, out), room, said)
    # libpng says so itself, before we do.
    lines = [line for line in said.read_text(errors="replace").splitlines() if not line.startswith("libpng error: ")]
    if code == 0:
        return "ended" if digest(kind, out) == whole else "other files"
    killed = code is not None and (code < 0 or (code == LOADER and lines[-1:] == [LOADER_SAYS]))
    if killed:
        how = LOADER_SAYS if code == LOADER else signal.Signals(-code).name
        print(f"{kind}, {room >> 10} KiB more: {' < '.join([how, *frames(lines)[:2]])}", flush=True)
    elif code != 1 or len(lines) != 1 or not lines[0].startswith("segda: "):
        return f"exit code {code}: {' / '.join(lines[-2:])[:200]}"
    if kind == "predict" and (half := [file.name for file in out.rglob("*") if not is_whole(file, whole, killed)]):
        return f"half a file: {half[0]}"
    again = run([*command(kind, out), "--resume"] if kind == "train" else command(kind, out), None, said)
    if again != 0 or digest(kind, out) != whole:
        return f"did not go on: exit code {again}: {said.read_text()[:200]}"
    return "killed" if killed else "said"


def frames(lines: list[str]) -> list[str]:
    """Where a process was when a signal ended it, the innermost first: what faulthandler has written of its thread."""
    own = dropwhile(lambda line: not line.startswith("Current thread"), lines)
    return [line.strip() for line in takewhile(bool, own)][1:]


def is_whole(file: Path, whole: dict[str, str], killed: bool) -> bool:
    """Whether what a prediction left is a folder, one of its pictures with all of its bytes, or, of a process that was
    killed, its temporary file or its lock.
    """
    if file.is_dir() or (killed and (file.name.endswith(".partial") or file.name == LOCK)):
        return True
    return file.name in {Path(name).name for name in whole} and file.read_bytes().endswith(END_OF_PNG)


def sweep(kind: str, runs: int, place: Path, rng: random.Random) -> bool:
    """Prints what became of so many runs; whether none is lost."""
    whole_in = place / f"whole_{kind}"
    assert run(command(kind, whole_in), None, place / "said") == 0, (place / "said").read_text()
    whole, most = digest(kind, whole_in), needed(kind, place)
    found: Counter[str] = Counter()
    for number in range(runs):
        room = int(most * (number + rng.random()) / runs)
        what = outcome(kind, place, room, whole)
        found[what if what in SURVIVED else "lost"] += 1
        if what not in SURVIVED:
            print(f"{kind}, {room >> 10} KiB more: {what}", flush=True)
    print(
        f"{kind}: tried {runs}, survived {sum(found[what] for what in SURVIVED)} ({found['ended']} to the end, "
        f"{found['said']} with one line, {found['killed']} ended by a library and called again), lost {found['lost']}; "
        f"room from 0 to {most >> 20} MiB",
        flush=True,
    )
    return not found["lost"]


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=int)
    parser.add_argument("kinds", nargs="*", default=["train", "predict"])
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        place, rng = Path(folder), random.Random(asked.seed)
        write_data(place / "data")
        recipe = load_recipe("source_only_streets").override(*SHRUNK, "optim.warmup=2", "network.channels=8")
        (place / "mine.yaml").write_text(recipe.to_yaml())
        assert run(command("train", place / "trained"), None, place / "said") == 0, (place / "said").read_text()
        # What a network imports when it is built and used.
        load_network(place / "trained").infer(torch.zeros(1, 3, 64, 64))
        assembly.assemble(recipe, place / "data", None)
        gc.freeze()
        well = [sweep(kind, asked.runs, place, rng) for kind in asked.kinds]
    return int(not all(well))


if __name__ == "__main__":
    sys.exit(measure())
