"""The colours of a prediction are those of training."""

from pathlib import Path

assert Path("before/a0_colour.png").read_bytes() == Path("after/a0_colour.png").read_bytes()
