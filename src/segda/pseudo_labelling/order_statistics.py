"""Exact order statistics of more numbers than fit into memory: which value sorting all of them would put at an index.

A non-negative float32 has the same order as its 32 bits read as an integer. So two readings suffice: the first counts
the upper 16 bits, which tells what upper half the wanted value has and how many values lie below that half; the second
counts the lower 16 bits of those with this upper half. Memory: 2^16 counters a class, and as many for each value asked
for, however many numbers there are. Counters of several processes can be added up between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

HALF = 1 << 16

Parts = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]
"""Gives labels (any shape, 0 .. C - 1) and as many scores (float32, none negative or NaN), part by part, each time."""


def index_at(share: float, pixels: int) -> int:
    """Where a share of n sorted values ends: round(share n), half to even, no more than n - 1; counted from 0.

    The authors' `x[np.round(len(x) * 0.5)]` of ESL and BDL: n = 1, 2, 3, 5, 7 -> 0, 1, 2, 2, 4 for half of them.
    """
    return min(round(share * pixels), pixels - 1)


def order_statistics(
    parts: Parts,
    classes: int,
    indices: Callable[[int], Sequence[int]],
    total: Callable[[np.ndarray], np.ndarray] = lambda counts: counts,
) -> tuple[np.ndarray, np.ndarray]:
    """(C,) pixels of each class, and (C, K) float32: for each class its scores at K indices of the sorted scores.

    indices: number of a class's pixels -> the K indices, each below it. A class without pixels has zeros.
    total: adds up counters over the processes that share the parts.
    """
    counts = np.zeros((classes, HALF), np.int64)
    for label, score in parts():
        np.add.at(counts.reshape(-1), _bucket(label, _bits(score)), 1)
    counts = total(counts)
    pixels = counts.sum(1)
    wanted = [tuple(indices(int(n))) if n else () for n in pixels]

    # A slot is an upper half of a class in which some wanted value lies.
    below = np.cumsum(counts, axis=1)
    upper = [np.searchsorted(below[c], wanted[c], side="right") for c in range(classes)]
    slots = np.full(classes * HALF, -1, np.int32)
    buckets = np.unique(np.concatenate([c * HALF + halves for c, halves in enumerate(upper)]).astype(np.int64))
    slots[buckets] = np.arange(len(buckets))
    lower = np.zeros((len(buckets), HALF), np.int64)
    for label, score in parts():
        bits = _bits(score)
        slot = slots[_bucket(label, bits)]
        held = slot >= 0
        np.add.at(lower.reshape(-1), slot[held].astype(np.int64) * HALF + (bits[held] & (HALF - 1)), 1)
    lower = np.cumsum(total(lower), axis=1)

    found = np.zeros((classes, max(map(len, wanted), default=0)), np.uint32)
    for c in range(classes):
        for k, (index, half) in enumerate(zip(wanted[c], upper[c], strict=True)):
            rest = index - (below[c, half - 1] if half else 0)
            found[c, k] = half * HALF + np.searchsorted(lower[slots[c * HALF + half]], rest, side="right")
    return pixels, found.view(np.float32)


def _bits(score: np.ndarray) -> np.ndarray:
    return (score.ravel() + np.float32(0)).view(np.uint32)  # -0.0, which has the sign's bit, becomes 0.0


def _bucket(label: np.ndarray, bits: np.ndarray) -> np.ndarray:
    return label.ravel().astype(np.int64) * HALF + (bits >> 16)
