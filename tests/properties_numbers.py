"""Labels, entropies, levels and thresholds are those of slow twins, whatever the numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from drawn import REFUSED, attempt, named
from segda.data.labels.spaces import SPACES, UNKNOWN, Space
from segda.distributed.shares import ALONE
from segda.evaluation.metrics import Confusion
from segda.parts.entropy import Level, balance, entropy, entropy_summary, mean_entropy, self_information
from segda.pseudo_labelling.order_statistics import order_statistics
from segda.pseudo_labelling.rules import RULES, labels_kept
from segda.recipes.build import build
from segda.scene import IGNORE

# Label mapping

NAMES = sorted({name for space in SPACES.values() for name in space.classes} | {"Void", "", "(ignored)"})


def labels_become_what_a_table_by_hand_says(names: dict[int, str], space: Space, ids: np.ndarray) -> None:
    table = space.lookup("own", names)
    for raw, found in zip(ids.ravel().tolist(), table[ids].ravel().tolist(), strict=True):
        if raw not in names:
            due = IGNORE if raw == IGNORE else UNKNOWN
        else:
            known = [
                known for known in space.classes if known == names[raw] or names[raw] in space.members.get(known, ())
            ]
            due = space.classes.index(known[0]) if known else IGNORE
        assert found == due
    counts = Confusion(len(space.classes))
    predicted = torch.from_numpy(ids.astype(np.int64)) % len(space.classes)
    counts.add(torch.from_numpy(table[ids]), predicted)
    assert counts.counts().sum() == np.isin(table[ids], [IGNORE], invert=True).sum()


# Entropy and thresholds

LOGITS = st.integers(2, 6).flatmap(
    lambda classes: arrays(
        np.float32,
        (1, classes, 4, 8),
        elements=st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-20, 20, width=32) | st.just(0.0),
    )
)


def entropy_is_finite_and_what_float64_says(values: np.ndarray) -> None:
    logits, classes = torch.from_numpy(values).requires_grad_(), values.shape[1]
    exact = values.astype(np.float64)
    exact = exact - exact.max(1, keepdims=True)
    log_prob = exact - np.log(np.exp(exact).sum(1, keepdims=True))
    terms = np.exp(log_prob) * -np.maximum(log_prob, -1e300)
    ours = entropy(logits)
    np.testing.assert_allclose(ours.detach(), terms.sum(1), atol=2e-5)
    np.testing.assert_allclose(self_information(logits).detach(), terms / math.log(classes), atol=2e-5)
    assert -1e-5 <= float(mean_entropy(logits).detach()) <= 1 + 1e-5
    (balance(ours, 0.4) + self_information(logits).sum()).backward()
    assert logits.grad.isfinite().all()
    known = entropy_summary("target", logits)
    histogram = known.pop("histogram/target")
    assert all(value.isfinite() for value in known.values()) and abs(float(histogram.sum()) - 1) < 1e-5
    assert (histogram >= 0).all()
    quantiles = [float(value) for name, value in known.items() if "/q" in name]
    assert quantiles == sorted(quantiles)


def a_level_stays_within_what_was_seen(
    steps: list[np.ndarray], statistic: str, quantile: float, momentum: float
) -> None:
    given = quantile if statistic == "quantile" else None
    level = Level("auto", statistic, given, momentum)
    for seen in steps:
        value = float(level.follow(torch.from_numpy(seen), ALONE))
        low = min(float(one.min()) for one in steps)
        high = max(float(one.max()) for one in steps)
        assert low - 1e-5 <= value <= high + 1e-5


def thresholds_are_those_of_sorting_all(labels: np.ndarray, seed: int, name: str, settings: dict[str, Any]) -> None:
    rule = attempt(build, RULES, {"name": name, **settings}, "rule")
    if rule is REFUSED:
        return
    rng = np.random.default_rng(seed)
    score = rng.choice(np.float32([0, 1e-45, 0.1, 0.25, 0.25, 0.999, 1]), labels.shape)
    classes = 4

    def indices(pixels: int) -> tuple[int, ...]:
        index = rule.index(pixels)
        return () if index is None else (index,)

    pixels, found = order_statistics(lambda: iter([(labels, score)]), classes, indices)
    found = found[:, 0] if found.shape[1] else np.zeros(classes)
    bounds = np.array([rule.threshold(float(one)) for one in found])
    assert np.isfinite(bounds).all()
    for c in range(classes):
        theirs = np.sort(score[labels == c])
        assert len(theirs) == pixels[c]
        if len(theirs) and rule.index(len(theirs)) is not None:
            assert found[c] == theirs[rule.index(len(theirs))]
    kept = labels_kept(rule, labels, score, bounds)
    for label, one, ours in zip(labels.ravel(), score.ravel(), kept.ravel(), strict=True):
        worse = float(one) > bounds[label] if rule.score == "entropy" else float(one) < bounds[label]
        assert ours == (IGNORE if worse else label)


SETTINGS = st.dictionaries(
    st.sampled_from(("share", "floor", "cap", "level", "images")),
    st.floats(-0.5, 1.5) | st.sampled_from((0, 0.5, 1, 3, "all", math.nan, None, [])),
    max_size=3,
) | st.sampled_from(
    ({"share": 0.5, "floor": 0.1, "images": "all"}, {"share": 0.66, "cap": 0.9, "images": 2}, {"level": 0.25})
)

UNIT = st.floats(0.01, 0.99)
MAPS = arrays(np.float32, (2, 3), elements=st.floats(0, 4, width=32))


NUMBERS = named(
    (
        labels_become_what_a_table_by_hand_says,
        st.dictionaries(st.integers(0, 255), st.sampled_from(NAMES), max_size=40),
        st.sampled_from(list(SPACES.values())),
        arrays(np.uint8, (3, 5)),
    ),
    (entropy_is_finite_and_what_float64_says, LOGITS),
    (
        a_level_stays_within_what_was_seen,
        st.lists(MAPS, min_size=1, max_size=4),
        st.sampled_from(("mean", "quantile")),
        UNIT,
        UNIT,
    ),
    (
        thresholds_are_those_of_sorting_all,
        arrays(np.uint8, (3, 7), elements=st.integers(0, 3)),
        st.integers(0, 99),
        st.sampled_from(sorted(RULES)),
        SETTINGS,
    ),
)
