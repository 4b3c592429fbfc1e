"""One write, sync, rename or removal of a training fails: it ends well, or in a line, and goes on to the same end."""

from __future__ import annotations

import json
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_whatever_fails_once_a_run_comes_to_the_same_end(forks):
    each = 1
    done = forks.run(BENCHMARKS / "write_failures.py", each, "source_only", "--small", "--json")
    (outcome,) = json.loads(done.stdout.splitlines()[-1])
    assert outcome["lost"] == [] and done.returncode == 0, done.stdout + done.stderr
    kinds = {"open", "write", "flush", "close", "fsync", "rename", "link", "unlink", "mkdir"}
    assert outcome["points"].keys() >= kinds, "the file layer sees all that a run does"
    assert outcome["tried"] == outcome["survived"] >= each * len(kinds)
    assert outcome["resumed"] > 0
