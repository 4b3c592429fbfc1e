"""The properties of tests/properties.py on as many random inputs as there is time for; prints how many were tried.

    python benchmarks/fuzz.py SECONDS [SEED]

One line a property: inputs tried, and those that were refused by an error of segda's in one line. An input that breaks
a property is printed, made as small as hypothesis can make it, and the exit code is 1. One that takes longer than a
minute ends the program with where it was.
"""

from __future__ import annotations

import faulthandler
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import properties
from drawn import attempt

ROUND = 200  # inputs of one property, before it is the next one's turn
HANGS = 60  # seconds


def counted(name: str, function: Callable[..., None], tried: Counter, refused: Counter) -> Callable[[tuple], None]:
    """The property, of one input and with its counts."""

    def one(drawn: tuple) -> None:
        faulthandler.dump_traceback_later(HANGS, exit=True)
        before = attempt.refused
        tried[name] += 1
        function(*drawn)
        refused[name] += attempt.refused > before

    return one


def main(seconds: float, first_seed: int) -> int:
    # Warnings are errors, as in the tests.
    warnings.simplefilter("error")
    tried, refused, broken, begin, turn = Counter(), Counter(), set(), time.monotonic(), 0
    while time.monotonic() - begin < seconds and len(broken) < len(properties.PROPERTIES):
        for name, (function, strategies) in properties.PROPERTIES.items():
            if name in broken or time.monotonic() - begin > seconds:
                continue
            round_ = settings(
                max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck),
                phases=(Phase.generate, Phase.shrink),
            )  # fmt: skip
            try:
                seed(first_seed + turn)(
                    round_(given(st.tuples(*strategies))(counted(name, function, tried, refused)))
                )()
            except Exception:
                traceback.print_exc()
                broken.add(name)
            faulthandler.cancel_dump_traceback_later()
        turn += 1
    for name in properties.PROPERTIES:
        print(f"{tried[name]:>9}  {refused[name]:>9} refused  {name}{'  BROKEN' if name in broken else ''}")
    print(
        f"{tried.total():>9}  {refused.total():>9} refused  in {time.monotonic() - begin:.0f} s; {len(broken)} broken"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
