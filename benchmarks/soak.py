"""A long training: does its memory grow, does it get slower?

    python benchmarks/soak.py MINUTES [RECIPE] [--small] [--set KEY=VALUE ...]

Starts `segda train` on drawn streets (ebda_streets, saved and scored every 500 steps), looks at the memory of it and of
the processes that read for it every ten seconds (/proc), and stops it with SIGTERM when the time is over. Prints steps,
memory and seconds a step in the first and the last tenth of the time since it was first scored: before that, not
everything has been there once. Exit code 1 if the training ended otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from kills import LEAST, SHRUNK, write_data
from segda import run as runs
from segda.ground.hardware import environment, pick_device, pick_precision

EVERY = 10.0


def resident(process: int) -> dict[str, float]:
    """MB of the processes' own memory (RssAnon) and of all that is resident, of a process and of its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    found = {"own": 0.0, "all": 0.0}
    for number in (str(process), *children):
        try:
            status = Path(f"/proc/{number}/status").read_text()
        except FileNotFoundError:  # a reader that ended meanwhile
            continue
        lines = dict(line.split(":", 1) for line in status.splitlines())
        for name, key in (("own", "RssAnon"), ("all", "VmRSS")):
            found[name] += int(lines[key].split()[0]) / 1024 if key in lines else 0.0
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float)
    parser.add_argument("recipe", nargs="?", default="ebda_streets")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    given = parser.parse_args()
    settings = ["steps=10000000", "save_every=500", "evaluate.every=500", "log_every=50", *given.settings]
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        if given.small:
            write_data(Path(folder))
            settings = [
                *SHRUNK,
                f"data.root={folder}",
                "data.workers=1",
                "evaluate.data=['camvid:test']",
                *LEAST,
                *settings,
            ]
        command = [sys.executable, "-m", "segda", "train", given.recipe, "--out", str(run)]
        command += [word for setting in settings for word in ("--set", setting)]
        training = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        begin, seen = time.monotonic(), []
        while (passed := time.monotonic() - begin) < 60 * given.minutes and training.poll() is None:
            if run.exists() and any("evaluation" in line for line in runs.read_log(run)):
                seen.append(resident(training.pid))
            time.sleep(EVERY)
        training.send_signal(signal.SIGTERM)
        code = training.wait()
        lines = list(runs.read_log(run))
        scores = [line for line in lines if "evaluation" in line]
        log = [line for line in lines if "seconds" in line and line["step"] > scores[0]["step"]]
    steps, hours, times = log[-1]["step"], passed / 3600, len({line["step"] for line in scores})
    print(f"`{' '.join(command[3:5])}`: {steps:,} steps in {hours:.2f} hours, scored {times} times")
    print("\n| | first tenth | last tenth | ratio |\n|---|---:|---:|---:|")
    tenth = max(1, len(seen) // 10)
    for name, title in (("own", "memory of its own, MB"), ("all", "resident memory, MB")):
        first, last = (median(one[name] for one in part) for part in (seen[:tenth], seen[-tenth:]))
        print(f"| {title} | {first:.0f} | {last:.0f} | {last / first:.3f} |")
    tenth = max(1, len(log) // 10)
    first, last = (median(line["seconds"] for line in part) for part in (log[:tenth], log[-tenth:]))
    print(f"| seconds a step | {first:.3f} | {last:.3f} | {last / first:.3f} |")
    device = pick_device("auto")
    facts = environment(device, pick_precision("auto", device))
    threads = os.environ.get("OMP_NUM_THREADS")
    print(f"\n{facts['processor']}, torch {facts['packages']['torch']}, OMP_NUM_THREADS={threads}")
    print(json.dumps({"exit": code}))
    return int(code != 0)


if __name__ == "__main__":
    raise SystemExit(main())
