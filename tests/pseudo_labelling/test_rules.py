"""Rules of pseudo-labels: which pixels they drop, where their numbers come from, what settings they refuse."""

from __future__ import annotations

import re
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segda.errors import RecipeError
from segda.pseudo_labelling.order_statistics import order_statistics
from segda.pseudo_labelling.rules import RULES, labels_kept, rule_spec, shipped_rules
from segda.recipes.build import build
from segda.scene import IGNORE


def rule_of(name, **changes):
    return build(RULES, rule_spec(name) | changes, "rule")


def labels_of(rule, label, score, classes=3):
    """What the rule keeps of one image, and its thresholds."""
    label, score = np.array([label], np.uint8), np.array([score], np.float32)
    _, found = order_statistics(lambda: [(label, score)], classes, lambda n: [rule.index(n) or 0])
    thresholds = np.array([rule.threshold(float(value)) for value in found[:, 0]])
    return labels_kept(rule, label, score, thresholds)[0].tolist(), thresholds.tolist()


def test_entropy_median_keeps_the_surer_half_and_ties_and_all_below_the_floor():
    rule = rule_of("entropy-median")
    label = [0] * 5 + [1] * 4
    score = [0.5, 0.2, 0.3, 0.3, 0.9, 0.01, 0.05, 0.02, 0.125]
    kept, thresholds = labels_of(rule, label, score)
    assert kept == [255, 0, 0, 0, 255, 1, 1, 1, 255]
    assert thresholds == [pytest.approx(0.3), 0.1, 0.1], "the floor holds for class 1, and for class 2 without pixels"


def test_the_floor_is_not_rounded_to_float32():
    # 0.1 as float32 is a little above 0.1: the authors compare in double and drop it.
    kept, _ = labels_of(rule_of("entropy-median"), [0, 0, 0, 0], [0.0, 0.0, 0.0, 0.1])
    assert float(np.float32(0.1)) > 0.1 and kept == [0, 0, 0, 255]


def test_class_median_is_bdl_and_keeps_all_from_the_cap_on():
    label = [0] * 4 + [1] * 4
    score = [0.3, 0.5, 0.7, 0.8, 0.95, 0.96, 0.97, 0.9]  # 0.9 as float32 is below 0.9
    kept, thresholds = labels_of(rule_of("class-median"), label, score)
    assert kept == [255, 255, 0, 0, 1, 1, 1, 255]
    assert thresholds == [pytest.approx(0.7), 0.9, 0]


def test_quantile_is_fda_and_keeps_the_upper_third():
    score = [k / 200 for k in range(100)]
    kept, thresholds = labels_of(rule_of("quantile"), [0] * 100, score)
    assert thresholds[0] == pytest.approx(0.33) and kept == [255] * 66 + [0] * 34
    assert (
        labels_of(rule_of("quantile", share=0.8, cap=1), [0] * 100, score)[0] == [255] * 80 + [0] * 20
    )  # CBST's p = 0.2


def test_fixed_has_one_threshold_for_all_classes():
    kept, thresholds = labels_of(rule_of("fixed", level=0.5), [0, 0, 1, 1], [0.4, 0.5, 0.6, 0.45])
    assert kept == [255, 0, 1, 255] and thresholds == [0.5] * 3


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.floats(0, 1, width=32)), min_size=1, max_size=60),
    st.sampled_from(["entropy-median", "class-median", "quantile"]),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_rule_is_a_sort_class_by_class(pixels, name, share, bound):
    limit = "floor" if name == "entropy-median" else "cap"
    ours, _ = labels_of(rule_of(name, share=share, **{limit: bound}), *zip(*pixels, strict=True))
    theirs = []
    for label, score in pixels:
        x = sorted(other for same, other in pixels if same == label)
        found = x[min(round(share * len(x)), len(x) - 1)]
        dropped = score > max(found, bound) if limit == "floor" else score < min(found, bound)
        theirs.append(IGNORE if dropped else label)
    assert ours == theirs


def test_every_rule_has_shipped_settings_that_build_it():
    assert set(shipped_rules()) == set(RULES)
    for name in RULES:
        assert rule_spec(name) == {"name": name, **shipped_rules()[name]}
        assert build(RULES, rule_spec(name), "rule").score in ("entropy", "confidence")


def test_every_shipped_number_says_where_it_comes_from():
    for number, line in enumerate((files("segda.pseudo_labelling") / "rules.yaml").read_text().splitlines(), 1):
        code, _, comment = line.partition("#")
        if re.search(r":\s*\S", code):
            assert re.search(r"\bours\b|\[code", comment), f"rules.yaml line {number}: {line}"


def test_a_setting_can_be_changed_and_the_rest_stays():
    assert rule_spec("entropy-median", ["floor=0.2", "images=3000"]) == {
        "name": "entropy-median",
        "share": 0.5,
        "floor": 0.2,
        "images": 3000,
    }


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        ("entropy-medain", [], r"rule.name: unknown 'entropy-medain'; did you mean 'entropy-median'\?"),
        ("entropy-median", ["flor=0.1"], "no setting 'flor'; did you mean 'floor'"),
        ("entropy-median", ["floor"], "--set 'floor': write KEY=VALUE"),
        ("entropy-median", ["floor=[1"], "--set floor: .* is not a YAML value"),
        ("entropy-median", ["floor=high"], "rule.floor: .*got 'high'"),
        ("entropy-median", ["floor=1.5"], "rule.floor: 1.5 is not between 0 and 1"),
        ("entropy-median", ["share=-0.1"], "rule.share: -0.1 is not between 0 and 1"),
        ("class-median", ["cap=2"], "rule.cap: 2.0 is not between"),
        ("class-median", ["share=.nan"], "rule.share"),
        ("fixed", ["level=90"], "rule.level: 90.0 is not between"),
        ("fixed", ["images=3000"], "fixed has no setting 'images'"),
        ("quantile", ["images=0"], "rule.images: 0; write all, or"),
        ("quantile", ["images=some"], "rule.images"),
        ({"name": "entropy-median", "floor": 0.1}, [], "entropy-median needs share, images"),
        ({"floor": 0.1}, [], "rule has no name"),
    ],
)
def test_a_rule_that_cannot_be_is_explained(rule, changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        build(RULES, rule_spec(rule, changes), "rule")
    assert "\n" not in str(caught.value)
