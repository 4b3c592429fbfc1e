"""Two trainings in one folder at the same moment: one of them trains."""

import json
import os
import sys
from pathlib import Path

from segda.cli.main import main

children = {}
for seed in (1, 2):
    child = os.fork()
    if child == 0:
        with open(f"said{seed}", "w") as sys.stderr:
            code = main(["train", "r.yaml", "--out", "run", "--set", f"seed={seed}"])
        os._exit(code)
    children[child] = seed
codes = {seed: os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child, seed in children.items()}
first, second = sorted(codes, key=codes.get)
assert [codes[first], codes[second]] == [0, 2], codes
(line,) = Path(f"said{second}").read_text().splitlines()
# The other word is of one who comes when the first has ended already.
assert line.startswith(("segda: another process trains in run (pid ", "segda: run already holds a run")), line
steps = [json.loads(row)["step"] for row in Path("run/log.jsonl").read_text().splitlines()]
assert steps == [1, 2, 3, 4, 5, 6], steps
assert f"seed: {first}" in Path("run/recipe.yaml").read_text().splitlines()
