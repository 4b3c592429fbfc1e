"""The exceptions a user can meet, and the helper that proposes the nearest name.

    SegdaError              what the user can put right: one line, exit code 2
    ├── RecipeError         a recipe, a setting or a command-line value
    ├── DataError           a data set, an image or a label
    ├── WeightsError        a checkpoint or a file of weights
    └── RunError            a run folder or the run itself (exists, cannot be written, loss not finite)

A message says what, where (file, key, value) and the way out, in one line. Our own invariants are `assert`s.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class SegdaError(ValueError):
    """Base of every error that the user can put right."""


class RecipeError(SegdaError):
    """A recipe, a setting or a command-line value is wrong."""


class DataError(SegdaError):
    """A data set, an image or a label is missing or wrong."""


class WeightsError(SegdaError):
    """A checkpoint or a file of weights does not fit or cannot be trusted."""


class RunError(SegdaError):
    """A run folder cannot be used, or a run cannot go on."""


def nearest(name: object, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what exists when nothing is near."""
    names = [str(known) for known in names]
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(names)) or 'none'}"
