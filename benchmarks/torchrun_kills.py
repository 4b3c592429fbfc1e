"""Trainings of several processes of which one is killed (SIGKILL) again and again, and torchrun starts all anew: do
they end as if nothing had happened?

    python benchmarks/torchrun_kills.py KILLS [METHOD[:PASSES[:PROCESSES]] ...] [--others] [--seed N] [--json]

Default: source_only, advent, ebda in one pass a step and ebda in two (`accumulate: 2`), two processes, KILLS kills
each, up to four in a run (`torchrun --nproc-per-node 2 --max-restarts 5`). --others: never the first process. Every run
is compared, when it has come to its end, with one that was left alone: SHA-256 of network, teacher and snapshots, and
the lines of the log but for what they say of time. Which process is killed is drawn; every other kill comes at a moment
drawn from most of the time that a whole run takes, importing included; the others within milliseconds of a file being
opened, renamed, linked or removed in the run folder by the first process, which writes. The recipes are those of
kills.py, with one scene a pass. Exit code 1 if a run ends otherwise.
"""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from killing import EVENTS, Outcome, measure

ALL = ("source_only:1", "advent:1", "ebda:1", "ebda:2")
IN_A_RUN = 4
"""Kills. A start more costs less than a run more."""
RESTARTS = IN_A_RUN + 1
PATIENCE = 3600.0
"""Seconds for a whole run; it hangs if it takes longer."""


@dataclass
class Shared(Outcome):
    """Of one method in so many passes a step."""

    by_rank: dict[int, int] = field(default_factory=dict)
    """Rank -> kills of it; the first writes."""


@dataclass(frozen=True)
class Kill:
    """Of a process, so many seconds after its start or the n-th thing that the first does to a file of the run."""

    rank: int
    seconds: float
    event: int | None = None


def worker(out: str, fifo: str, arguments: list[str]) -> None:
    """One of the processes: says its number and what it does to files of `out`, and trains."""
    told = os.open(fifo, os.O_WRONLY)
    rank, events = os.environ["RANK"], iter(range(1, 10**9))
    os.write(told, f"{rank} {os.getpid()} 0\n".encode())

    def listen(event: str, given: tuple) -> None:
        if event in EVENTS and out in str(given):
            os.write(told, f"{rank} {os.getpid()} {next(events)}\n".encode())

    sys.addaudithook(listen)
    from segda.cli.main import main

    sys.exit(main(arguments))


def whole_run(recipe: Path, out: Path, processes: int, kills: list[Kill], outcome: Shared) -> float:
    """Trains to the end, with one kill after the other; returns the seconds that it took."""
    fifo = out.with_suffix(".fifo")
    os.mkfifo(fifo)
    heard = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)  # stays open between two starts
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), "--standalone",
               "--max-restarts", str(RESTARTS), __file__, "--worker", out, fifo, "train", recipe,
               "--out", out]  # fmt: skip
    begin, log = time.monotonic(), out.with_suffix(".txt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with log.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=environment) as job:
        watch = os.pidfd_open(job.pid)
        try:
            for kill in kills:
                killed = _kill(kill, heard, watch)
                if killed is None:
                    break
                outcome.kills += 1
                outcome.by_rank[kill.rank] = outcome.by_rank.get(kill.rank, 0) + 1
                outcome.in_files += kill.event is not None
                outcome.before_a_checkpoint += not (out / "last.pt").exists()
            while not select.select([watch], [], [], 1)[0]:
                _read(heard)  # a full pipe would stop the run
                assert time.monotonic() - begin < PATIENCE, f"a training hangs, see {log}"
        finally:
            job.poll() is None and job.terminate()
            os.close(watch)
            os.close(heard)
    assert job.returncode == 0, f"a training failed:\n{log.read_text()}"
    return time.monotonic() - begin


def _kill(kill: Kill, heard: int, watch: int) -> int | None:
    """The number of the process that was killed; None if the run came to its end before."""
    numbers: dict[int, int] = {}
    number, due, rest = None, None, b""
    while True:
        left = None if due is None else max(0.0, due - time.monotonic())
        ready = select.select([heard, watch], [], [], left)[0]
        if due is not None and not ready:
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:  # it has done its part
                return None
            return number
        if watch in ready:
            return None
        if heard in ready:
            *lines, rest = (rest + _read(heard)).split(b"\n")
            for rank, process, event in (map(int, line.split()) for line in lines):
                numbers[rank] = process
                here = rank == (kill.rank if kill.event is None else 0) and event == (kill.event or 0)
                if here and due is None and kill.rank in numbers:
                    number, due = numbers[kill.rank], time.monotonic() + kill.seconds


def _read(heard: int) -> bytes:
    try:
        return os.read(heard, 65536)
    except BlockingIOError:
        return b""


def drawn(rng: random.Random, processes: int, duration: float) -> Kill:
    rank = rng.randrange(1 if "--others" in sys.argv else 0, processes)
    if rng.random() < 0.5:
        return Kill(rank, rng.uniform(0, 0.004), rng.randrange(1, 40))  # of some sixty in a whole run
    return Kill(rank, rng.uniform(0, 0.9 * duration))


def case_of(name: str, kills: int, place: Path, rng: random.Random) -> Shared:
    from kills import result, small

    method, passes, processes = (name.split(":") + ["1", "2"][name.count(":") :])[:3]
    recipe, outcome = place / f"{name.replace(':', '-')}.yaml", Shared(name)
    made = small(method, "32", place / "data").override("data.batch=1", f"accumulate={passes}", "compare_every=3")
    recipe.write_text(made.override("patience=1800", "evaluate.data=['camvid:test']").to_yaml())
    whole = recipe.with_suffix("")
    duration = whole_run(recipe, whole, int(processes), [], outcome)
    expected = result(whole)
    while outcome.kills < kills:
        outcome.runs += 1
        out = place / f"{whole.name}-{outcome.runs}"
        count = min(IN_A_RUN, kills - outcome.kills)
        due = [drawn(rng, int(processes), duration) for _ in range(count)]
        whole_run(recipe, out, int(processes), due, outcome)
        outcome.equal += result(out) == expected
    return outcome


def prepare(place: Path, cases: Sequence[str]) -> None:
    from kills import write_data

    write_data(place / "data")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], sys.argv[4:])
    sys.exit(measure(__doc__.splitlines()[0], ALL, prepare, case_of, ["--others"]))
