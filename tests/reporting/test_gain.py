"""The lines at the end of a comparison of two runs: the numbers, and what they mean in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import small_recipe
from segda.evaluation.metrics import Report
from segda.evaluation.protocol import Protocol
from segda.reporting.comparison import beside
from segda.reporting.gain import FEW, gain_lines

PROTOCOL = Protocol("camvid:test:dusk", 3, "student", 40, "tiny", None, "whole", None, None, False, "float32")
DAY, NIGHT, OTHER = "camvid:val:day", "camvid:test:dusk", "streets:val"


def report(data, *ious, weights="student"):
    """Of each class 1000 labelled pixels, of which so many % are right; the others are taken for no class at all."""
    names = tuple(f"c{number}" for number in range(len(ious)))
    counts = np.zeros((len(ious) + 1, len(ious)), np.int64)
    for number, iou in enumerate(ious):
        counts[number, number] = round(10 * iou)
    counts = np.column_stack([counts, np.append([1000 - round(10 * iou) for iou in ious], 0)])
    counts = np.vstack([counts[:-1], np.zeros((2, len(ious) + 1), np.int64)])
    return Report(replace(PROTOCOL, data=data, weights=weights), (*names, "rest"), counts)


def compared(before, after, seeds=False):
    """Two runs of the small recipe, CamVid's day to its dusk."""
    recipe = small_recipe(Path("data"))
    return beside({"plain": before, "ours": after}, {"plain": recipe, "ours": recipe})


def miou(*ious):
    """By hand: the last class is labelled nowhere and predicted somewhere, so its IoU is 0 and counts."""
    return sum(ious) / (len(ious) + 1)


def test_a_line_for_each_data_set_the_target_first_then_the_words():
    lines = gain_lines(
        compared([report(DAY, 80, 60), report(NIGHT, 30, 0)], [report(DAY, 80, 54), report(NIGHT, 60, 30)])
    )
    assert lines == [
        "camvid:test:dusk (target)  10.0 -> 30.0  (+20.0 mIoU)",
        "camvid:val:day (source)    46.7 -> 44.7  (-2.0)",
        "ours against plain: gained 20.0 points on the target; lost 2.0 points on the source; at IoU 0 on the target: "
        "2 classes (c1, rest) before, 1 class (rest) after.",
    ]
    assert miou(30, 0) == 10 and miou(60, 30) == 30


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (50, 53, "gained 1.5 points on the target"),
        (50, 47, "lost 1.5 points on the target"),
        (50, 52, "no clear difference on the target (+1.0)"),
        (50, 48, "no clear difference on the target (-1.0)"),
        (50, 50, "no clear difference on the target (0.0)"),
    ],
)
def test_the_target_is_gained_lost_or_neither(before, after, said):
    lines = gain_lines(compared([report(NIGHT, before)], [report(NIGHT, after)]))
    assert lines[-1].startswith(f"ours against plain: {said}; ")


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (52, "kept the source within one point (+1.0)"),
        (48, "kept the source within one point (-1.0)"),
        (47, "lost 1.5 points on the source"),
        (60, "gained 5.0 points on the source"),
    ],
)
def test_the_source_is_kept_or_lost(after, said):
    lines = gain_lines(compared([report(DAY, 50), report(NIGHT, 9)], [report(DAY, after), report(NIGHT, 9)]))
    assert f"; {said}; " in lines[-1]


def test_classes_at_zero_are_named_where_they_are_few():
    few, many = [0] * (FEW - 1) + [50], [0] * FEW + [50]
    lines = gain_lines(compared([report(NIGHT, *few)], [report(NIGHT, *few)]))
    assert lines[-1].endswith("5 classes (c0, c1, c2, c3, rest) before, 5 classes (c0, c1, c2, c3, rest) after.")
    lines = gain_lines(compared([report(NIGHT, *many)], [report(NIGHT, *few, 0.04)]))
    assert lines[-1].endswith("6 classes before, 6 classes after."), "0.04 % is printed as 0.0"


def test_no_class_at_zero_is_said():
    whole = replace(report(NIGHT, 50, 50), class_names=("a", "b"), counts=np.array([[5, 5], [5, 5], [0, 0]]))
    assert gain_lines(compared([whole], [whole]))[-1].endswith("; no class has IoU 0 on the target.")


def test_data_sets_of_no_known_domain_and_several_targets_go_by_their_names():
    both = [report(OTHER, 50), report(NIGHT, 50), report("camvid:train:dusk", 50)]
    lines = gain_lines(compared(both, both))
    assert [line.split("  ")[0] for line in lines[:3]] == [
        "camvid:test:dusk (target)", "camvid:train:dusk (target)", "streets:val",
    ]  # fmt: skip
    for place in ("camvid:test:dusk", "camvid:train:dusk", "streets:val"):
        assert f"no clear difference on {place} (0.0)" in lines[-1]
    assert "the target" not in lines[-1]


def test_there_are_no_lines_but_of_two_runs_measured_on_the_same():
    recipe = small_recipe(Path("data"))
    one = [report(NIGHT, 50)]
    assert gain_lines(beside({"a": one}, {"a": recipe})) == []
    assert gain_lines(beside({"a": one, "b": one, "c": one}, {"a": recipe})) == []
    assert gain_lines(compared(one, [report(DAY, 50)])) == []
    assert gain_lines(compared(one, [report(NIGHT, 50, weights="teacher")])) == []


def test_over_seeds_a_gain_must_exceed_its_spread_to_be_clear():
    def runs(method, *ious):
        recipe = small_recipe(Path("data"), method)
        return {f"{method}-seed{seed}": ([report(NIGHT, iou)], recipe.override(f"seed={seed}")) for seed, iou in
                enumerate(ious)}  # fmt: skip

    def said(before, after):
        both = runs("source_only", *before) | runs("dacs", *after)
        found = beside({name: of for name, (of, _) in both.items()}, {name: one for name, (_, one) in both.items()},
                       seeds=True)  # fmt: skip
        return gain_lines(found)

    lines = said((20, 40), (24, 46))  # mIoU 10, 20 and 12, 23: +2 and +3
    assert lines[0] == "camvid:test:dusk (target)  15.0 ± 7.1 -> 17.5 ± 7.8  (+2.5 ± 0.7 mIoU)"
    assert lines[1].startswith("dacs against source_only: gained 2.5 ± 0.7 points on the target; ")
    assert "no clear difference on the target (+2.5 ± 6.4)" in said((20, 40), (16, 54))[1]  # -2 and +7
