"""What the benchmarks that kill trainings share: what they count, their command line and what they print."""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

EVENTS = ("open", "os.rename", "os.link", "os.remove", "os.mkdir")
"""What a training does to the files of its run, as Python's audit hooks call it."""


@dataclass
class Outcome:
    """Of one case."""

    case: str
    kills: int = 0
    in_files: int = 0
    """Kills while something was written or about to be."""
    before_a_checkpoint: int = 0
    runs: int = 0
    equal: int = 0


def measure(
    about: str,
    all_cases: Sequence[str],
    prepare: Callable[[Path, Sequence[str]], None],
    case_of: Callable[[str, int, Path, random.Random], Outcome],
    options: Sequence[str] = (),
) -> int:
    """The command line's kills of its cases, in a folder that `prepare` fills; returns the exit code.

    options: further words of it, as "--others".
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("kills", type=int)
    parser.add_argument("cases", nargs="*", default=all_cases)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    for option in options:
        parser.add_argument(option, action="store_true")
    asked = parser.parse_args()
    rng, outcomes = random.Random(asked.seed), []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        prepare(place, asked.cases)
        for case in asked.cases:
            outcomes.append(case_of(case, asked.kills, place, rng))
            if not asked.json:
                print(outcomes[-1], flush=True)
    if asked.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
    else:
        kills, ended, equal = (sum(getattr(one, key) for one in outcomes) for key in ("kills", "runs", "equal"))
        print(f"{kills} kills; {equal} of {ended} runs ended as if they had been left alone; {ended - equal} lost")
    return int(any(outcome.equal < outcome.runs for outcome in outcomes))
