"""Want of memory, of the machine's or of a device's, in whatever words a library says it."""

from __future__ import annotations

import errno
from collections.abc import Iterator

SIGNS = (
    "can't allocate memory",  # torch, on the processor
    "not enough memory",
    "out of memory",  # CUDA's own, where torch's allocator did not ask
    "Cannot allocate memory",  # the system, when a file is mapped
    "failed to map segment",  # and when a library is loaded
    "can't start new thread",
    "Insufficient memory",  # OpenCV
    "could not create a primitive",  # oneDNN
    "bad_alloc",
)
"""What stands in errors of a kind that says nothing."""

WAYS = {
    "train": "set activation_checkpointing=true, a lower data.batch with a higher accumulate (--max-batch says how "
    "many scenes fit), or a smaller data.source.augment.crop and data.target.augment.crop",
    **dict.fromkeys(
        ("evaluate", "predict", "pseudo-label", "report", "select", "adapt"),
        "use --precision bf16 where there is such an option, or set a smaller evaluate.window or evaluate.resize, or "
        "fewer evaluate.scales, in the run's recipe",
    ),
    **dict.fromkeys(("prepare", "make-fog", "make-rain"), "use fewer --workers, or smaller images"),
}
"""Command -> what asks for less."""


def lacks_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came of, is want of memory."""
    return any(_says_so(one) for one in _chain(error))


def out_of_memory(command: str | None) -> str:
    """What to say then, with the ways out."""
    ways = WAYS.get(command or "", "close other programs, or use a machine that has more")
    return f"out of memory; {ways}"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _says_so(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    # OpenCV's is of no kind at all.
    own = isinstance(error, RuntimeError | ImportError) or type(error).__module__ == "cv2"
    return own and any(sign in str(error) for sign in SIGNS)
