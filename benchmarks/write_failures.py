"""Trainings in which one write fails, once: do they end well, or in one line, and go on to the same end?

    python benchmarks/write_failures.py POINTS [METHOD ...] [--small] [--seed N] [--json]

Default: source_only and ebda. Everything that a whole run does to its files, from the first folder to the report, is
counted (failing_files.py): opened for writing, written, flushed, closed, synced, renamed, linked, removed. Then one run
after the other begins, of which one of these fails with ENOSPC or EIO: POINTS of each kind, drawn, or all with 0. (Of
the thousands of writes most are parts of one checkpoint. With --small the network has four tensors,
two_convolutions.py, so that each of them can be tried.)

survived: the run came to its end all the same, or said one line, had exit code 1 or 2, and came to its end when it was
called again with --resume; and the end is that of a run left alone: SHA-256 of networks and snapshots, lines of the log
but for what they say of time. lost: anything else. The recipes are those of kills.py, scored and reported. Exit code 1
if any is lost.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

from failing_files import FailingFiles
from kills import LEAST, prepare, small
from kills import result as all_of
from segda.cli.main import main
from segda.ground.alone import LOCK
from segda.training import assembly

ALL = ("source_only", "ebda")
ERRORS = (errno.ENOSPC, errno.EIO)


@dataclass
class Outcome:
    """Of one method."""

    case: str
    points: dict[str, int] = field(default_factory=dict)
    """What a whole run does to its files, and how often."""
    tried: int = 0
    ended: int = 0
    """Runs that came to their end though something failed."""
    resumed: int = 0
    """Runs that said a line, and came to their end when they were called again."""
    lost: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.ended + self.resumed

    def line(self) -> str:
        said = ", ".join(f"{count} {what}" for what, count in self.points.items())
        return (
            f"{self.case}: {self.tried} tried of {sum(self.points.values())} ({said}); {self.survived} survived "
            f"({self.ended} to the end at once, {self.resumed} resumed); {len(self.lost)} lost"
        )


def result(run: Path) -> dict[str, object]:
    """What two equal runs have in common; a lock that could not be removed keeps nobody out."""
    found = all_of(run)
    return found | {"files": [name for name in found["files"] if name != LOCK]}


def attempt(recipe: Path, out: Path, fails: int | None = None, error: int = 0) -> tuple[int, str, dict]:
    """Trains in a child; its exit code, what it said on standard error, and what its file layer says."""
    heard, told = os.pipe()
    said = out.with_suffix(".txt")
    child = os.fork()
    if child == 0:
        with said.open("w") as err, Path(os.devnull).open("w") as nothing:
            os.dup2(err.fileno(), 2)
            os.dup2(nothing.fileno(), 1)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", buffering=1, closefd=False) for number in (1, 2))
        layer = FailingFiles(out.parent, fails, error)
        try:
            code = main(["train", str(recipe), "--out", str(out), "--resume"])
        except BaseException as fault:
            print(f"Traceback: {type(fault).__name__}: {fault}", file=sys.stderr)
            code = 99
        os.write(told, json.dumps({"done": layer.done, "failed": layer.failed}).encode())
        os._exit(code)
    os.close(told)
    with os.fdopen(heard) as answer:
        found = json.loads(answer.read() or '{"done": [], "failed": "it died"}')
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, said.read_text(), found


def fate(recipe: Path, out: Path, fails: int, error: int, expected: dict, outcome: Outcome) -> None:
    """One run of which something fails."""
    code, said, found = attempt(recipe, out, fails, error)
    outcome.tried += 1
    at = f"{outcome.case} {fails} ({found['failed']})"
    # A warning is a line of its own.
    lines = [line for line in said.splitlines() if not line.startswith("segda: warning: ")]
    if not found["failed"]:
        outcome.lost.append(f"{at}: nothing failed; two runs do not do the same")
        return
    if code == 0:
        if result(out) == expected:
            outcome.ended += 1
        else:
            outcome.lost.append(f"{at}: ended otherwise than a run left alone")
        return
    if code not in (1, 2) or len(lines) != 1 or not lines[0].startswith("segda: "):
        outcome.lost.append(f"{at}: exit code {code}, {lines[-1:]}")
        return
    code, said, _ = attempt(recipe, out)
    if code != 0 or result(out) != expected:
        outcome.lost.append(f"{at}: after {lines[0]!r}, resumed: exit code {code}, {said.splitlines()[-1:]}")
        return
    outcome.resumed += 1


def case_of(method: str, points: int, place: Path, rng: random.Random, *settings: str) -> Outcome:
    folder, outcome = place / method, Outcome(method)
    folder.mkdir()
    recipe = small(method, "32", place / "data").override(
        "steps=4", "keep_every=2", "evaluate.data=['camvid:test']", *settings
    )
    file = place / f"{method}.yaml"
    file.write_text(recipe.to_yaml())
    # What is imported when it is first needed is imported here; nothing is computed, since threads survive no fork.
    assembly.assemble(recipe, place / "data", None)
    (folder / "alone").mkdir()
    code, said, found = attempt(file, folder / "alone" / "run")
    assert code == 0, said
    outcome.points, expected = dict(Counter(found["done"])), result(folder / "alone" / "run")
    chosen = []
    for kind, count in outcome.points.items():
        there = [number for number, what in enumerate(found["done"], 1) if what == kind]
        chosen += rng.sample(there, min(points or count, count))
    for fails in sorted(chosen):
        own = folder / str(fails)
        own.mkdir()
        fate(file, own / "run", fails, ERRORS[fails % len(ERRORS)], expected, outcome)
        shutil.rmtree(own)
    return outcome


def measure() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("points", type=int)
    parser.add_argument("cases", nargs="*", default=ALL)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    rng, outcomes = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder), asked.cases)
        for case in asked.cases:
            outcomes.append(case_of(case, asked.points, Path(folder), rng, *(LEAST if asked.small else ())))
            if not asked.json:
                print(outcomes[-1].line(), *outcomes[-1].lost, sep="\n", flush=True)
    if asked.json:
        print(json.dumps([asdict(outcome) | {"survived": outcome.survived} for outcome in outcomes]))
    else:
        total = Counter({key: sum(getattr(one, key) for one in outcomes) for key in ("tried", "survived")})
        print(f"{total['tried']} tried; {total['survived']} survived; {total['tried'] - total['survived']} lost")
    return int(any(outcome.lost for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(measure())
