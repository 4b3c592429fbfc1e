"""The exceptions a user can meet, and the helper that proposes the nearest name.

    SegdaError              what the user can put right: one line, exit code 2
    ├── RecipeError         a recipe, a setting or a command-line value
    ├── DataError           a data set, an image or a label
    │   └── ImageError      the file of one image or label that is missing or damaged
    ├── WeightsError        a checkpoint or a file of weights
    └── RunError            a run folder that cannot be used as it was asked (it holds another run, is a file)
        └── RunFailure      a run that was asked rightly and failed (disk full, loss not finite): exit code 1
    Interrupted             Ctrl-C, SIGTERM and their like in a training, after it was saved: exit code 130 or 0

A message says what, where (file, key, value) and the way out, in one line. Our own invariants are `assert`s.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar


class SegdaError(ValueError):
    """Base of every error that the user can put right. Names that others gave are made visible in its message."""

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str):
        super().__init__(visible(message))


class RecipeError(SegdaError):
    """A recipe, a setting or a command-line value is wrong."""


class DataError(SegdaError):
    """A data set, an image or a label is missing or wrong."""


class ImageError(DataError):
    """One image or label cannot be read: its file is missing or damaged. What can be read but is of a wrong kind is
    another error: a setting or the whole data set is wrong then.

    path: the file, as the message shows it.
    """

    def __init__(self, message: str, path: object):
        super().__init__(message)
        self.path = visible(str(path))

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        return type(self), (str(self), self.path)


class WeightsError(SegdaError):
    """A checkpoint or a file of weights does not fit or cannot be trusted."""


class RunError(SegdaError):
    """A run folder cannot be used as it was asked."""


class RunFailure(RunError):
    """A command that was asked rightly cannot go on: the disk is full, a folder is gone, a loss is not finite."""

    exit_code: ClassVar[int] = 1


class Interrupted(KeyboardInterrupt):
    """A training was asked to stop; the message says what of it is saved.

    exit_code: 130 after Ctrl-C, 131 after Ctrl-\\, 0 after SIGTERM, SIGUSR1 and SIGHUP, which whoever shares machines
        out sends as a matter of course.
    saved: whether there is anything of it to go on from.
    """

    def __init__(self, message: str, exit_code: int, saved: bool):
        super().__init__(message)
        self.exit_code, self.saved = exit_code, saved


def nearest(name: object, names: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or the list of what exists when nothing is near."""
    names = [str(known) for known in names]
    close = get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(names)) or 'none'}"


def few(names: Iterable[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def kept(saved: int | None) -> str:
    """What is left of a training that cannot go on; saved: the step after which it was last saved."""
    return "no checkpoint was saved before" if saved is None else "the last checkpoint is kept"


def visible(text: str) -> str:
    r"""The text with all that cannot be shown as itself written out: a line's end as \n, a terminal's commands too."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
