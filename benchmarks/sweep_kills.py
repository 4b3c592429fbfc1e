"""Sweeps that are killed (SIGKILL) again and again and called again: do their runs end as if nothing had happened?

    python benchmarks/sweep_kills.py KILLS [METHOD ...] [--seed N] [--json]

Default: source_only and ebda, two seeds each, KILLS kills. Who is killed is drawn: the sweep, the run that it trains,
or both. A sweep that is killed alone leaves its run, which goes on: the next call must keep out of that one's folder,
and fails for as long as it lasts. A run that is killed alone is one that failed; the sweep goes on with the next. Kills
come at a moment drawn from most of the time that a whole sweep takes. Every run of a sweep that has come to its end is
compared with that of a sweep that was left alone, as kills.py does. The process here imports segda once; sweeps and
their runs are children of it. Exit code 1 if a run ends otherwise.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from killing import Outcome, measure
from kills import prepare, result, small
from segda.cli.main import main
from segda.training import assembly
from segda.training import sweep as runner

ALL = ("source_only", "ebda")
SWEEP = """
recipe: {recipe}
runs: {runs}
axes: {{seed: [0, 1]}}
"""
BOTH = ("sweep", "run", "both")


@dataclass
class OfSweeps(Outcome):
    """Of one method; a run is that of a sweep."""

    whom: dict[str, int] = field(default_factory=dict)
    """Who was killed -> how often."""
    called: int = 0
    """Sweeps, until all runs were there."""


def forked(words: list[str]) -> str | None:
    """`segda WORDS` in a fork, in place of a new Python; None when it went well, else how it ended."""
    child = os.fork()
    if child == 0:
        os._exit(main([*words]))
    RUNNING.write_text(str(child))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return None if code == 0 else f"exit code {code}"


RUNNING = Path()
"""The file that names the process of the run that is trained."""


def call(file: Path, said: Path, kill: tuple[str, float] | None) -> tuple[int, str]:
    """`segda sweep FILE` in a child, killed or not; its exit code, negative for a signal, and who was killed."""
    RUNNING.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        with said.open("a") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        runner.in_its_own_process = forked
        os._exit(main(["sweep", str(file)]))
    watch, killed = os.pidfd_open(child), ""
    if kill is not None and not select.select([watch], [], [], kill[1])[0]:
        run = int(RUNNING.read_text() or 0) if RUNNING.exists() else 0
        killed = kill[0] if run else "sweep"
        for number in {"sweep": [child], "run": [run], "both": [child, run]}[killed]:
            with suppress(ProcessLookupError):  # a run may just have come to its end
                os.kill(number, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(watch)
    return code, killed


def case_of(method: str, kills: int, place: Path, rng: random.Random) -> OfSweeps:
    global RUNNING
    folder, outcome = place / method, OfSweeps(method)
    folder.mkdir()
    RUNNING = folder / "running"
    recipe = small(method, "32", place / "data").override("evaluate.data=['camvid:test']")
    (folder / "recipe.yaml").write_text(recipe.to_yaml())
    # What is imported when it is first needed is imported here; nothing is computed, since threads survive no fork.
    assembly.assemble(recipe, place / "data", None)

    def sweep_of(name: str) -> Path:
        file = folder / f"{name}.yaml"
        file.write_text(SWEEP.format(recipe=folder / "recipe.yaml", runs=folder / name))
        return file

    begin = time.monotonic()
    code, _ = call(sweep_of("alone"), folder / "alone.txt", None)
    assert code == 0, (folder / "alone.txt").read_text()
    duration = time.monotonic() - begin
    expected = {run.name: result(run) for run in (folder / "alone").glob("*seed*")}
    assert len(expected) == 2
    while outcome.kills < kills:
        name = f"killed{outcome.runs}"
        file = sweep_of(name)
        code = -1
        while code != 0:
            kill = (rng.choice(BOTH), rng.uniform(0, 0.8 * duration)) if outcome.kills < kills else None
            code, killed = call(file, folder / f"{name}.txt", kill)
            outcome.called += 1
            outcome.kills += bool(killed)
            if killed:
                outcome.whom[killed] = outcome.whom.get(killed, 0) + 1
            time.sleep(0.2 * (code > 0))  # a run that goes on without its sweep keeps the next one out
        found = {run.name: result(run) for run in (folder / name).glob("*seed*")}
        outcome.runs += len(expected)
        outcome.equal += sum(found.get(run) == end for run, end in expected.items())
    return outcome


if __name__ == "__main__":
    sys.exit(measure(__doc__.splitlines()[0], ALL, prepare, case_of))
