"""Order statistics without sorting: bit by bit what sorting all scores of a class gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from segda.pseudo_labelling.order_statistics import index_at, order_statistics

CLASSES = 3

SCORES = st.one_of(
    st.floats(0, 1, width=32),
    st.floats(0, width=32, allow_nan=False),  # up to infinity
    st.floats(0, 2.0**-126, width=32, allow_subnormal=True),
    st.sampled_from([0.0, -0.0, 0.5, np.float32(0.1), 1.0]),  # ties
)


@st.composite
def images(draw):
    """Label and score of a few images of several sizes."""
    sizes = draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    return [
        (
            draw(arrays.arrays(np.uint8, size, elements=st.integers(0, CLASSES - 1))),
            draw(arrays.arrays(np.float32, size, elements=SCORES)),
        )
        for size in sizes
    ]


def bits(scores: np.ndarray) -> list[int]:
    return (np.asarray(scores, np.float32) + np.float32(0)).view(np.uint32).tolist()


@settings(deadline=None)
@given(images(), st.floats(0, 1))
def test_it_is_the_value_that_sorting_puts_there(parts, share):
    def indices(pixels):
        return [index_at(share, pixels), 0, pixels - 1, pixels // 3]

    pixels, found = order_statistics(lambda: parts, CLASSES, indices)
    label, score = (np.concatenate(each) for each in zip(*parts, strict=True))
    for c in range(CLASSES):
        x = np.sort(score[label == c])
        assert pixels[c] == len(x)
        assert bits(found[c]) == (bits(x[indices(len(x))]) if len(x) else [0] * found.shape[1])


@settings(deadline=None)
@given(images(), st.integers(1, 3))
def test_processes_that_add_their_counters_up_find_the_same(parts, processes):
    # Each call of `total` is where all processes meet: what the others have is known from a run of their own.
    met: list[list[np.ndarray]] = []

    def run(own, total):
        return order_statistics(lambda: own, CLASSES, lambda pixels: [index_at(0.5, pixels)], total)

    whole = run(parts, lambda counts: met.append(counts) or counts)
    shares = [parts[rank::processes] for rank in range(processes)]
    for own in shares:
        sums = iter(met)
        seen = []

        def total(counts, sums=sums, seen=seen):
            seen.append(counts.sum())
            together = next(sums)
            assert counts.shape == together.shape and (counts <= together).all()
            return together

        pixels, found = run(own, total)
        assert np.array_equal(pixels, whole[0]) and bits(found) == bits(whole[1])
        assert seen[0] == sum(len(label) for label, _ in own)


@pytest.mark.parametrize(
    ("pixels", "index"),
    [(1, 0), (2, 1), (3, 2), (4, 2), (5, 2), (6, 3), (7, 4), (9, 4), (11, 6), (10**10 + 1, 5 * 10**9)],
)
def test_half_of_n_pixels_ends_where_the_authors_rounding_puts_it(pixels, index):
    assert index_at(0.5, pixels) == index


def test_a_share_ends_inside():
    assert [index_at(share, 10) for share in (0, 0.04, 0.66, 0.95, 1)] == [0, 0, 7, 9, 9]
    assert index_at(1, 1) == index_at(0.99, 1) == 0


def test_parts_are_read_twice_and_never_held():
    readings = []

    def parts():
        readings.append(len(readings))
        for k in range(50):
            yield np.zeros(10, np.uint8), np.full(10, k, np.float32)

    _, found = order_statistics(parts, 1, lambda pixels: [249, 250])
    assert readings == [0, 1] and found.tolist() == [[24, 25]]


def test_no_index_needs_no_score_but_counts_pixels():
    pixels, found = order_statistics(lambda: [(np.array([0, 2, 2], np.uint8), np.ones(3, np.float32))], 3, lambda n: [])
    assert pixels.tolist() == [1, 0, 2] and found.shape == (3, 0)
