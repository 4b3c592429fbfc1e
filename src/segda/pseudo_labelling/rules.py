"""Offline rules of pseudo-labels: which pixels of a whole data set keep the class that a network predicts.

The same outline in all: pixels are sorted, class by predicted class, by how sure the network is of them; the score at
some place of that order, bounded, is the class's threshold; what is less sure than that becomes IGNORE, and what equals
it stays. The numbers lie in rules.yaml with their sources.

    entropy-median   ESL (Saporta et al. 2020): entropy, its median, no less than a floor
    class-median     BDL (Li et al. 2019): confidence, its median, no more than a cap
    quantile         FDA (Yang and Soatto 2020): the same at another place. CBST's (Zou et al. 2018) portion p of each
                     class is share 1 - p, cap 1; its labels by p_c / threshold_c, not by p_c alone, are no part of it
    fixed            confidence, one threshold for all classes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import yaml

from segda.errors import RecipeError
from segda.ground.choices import Softmax
from segda.ground.ignore import IGNORE
from segda.pseudo_labelling.order_statistics import index_at
from segda.recipes.build import changed, check

Score = Literal["entropy", "confidence"]
"""entropy: -sum_c p ln p / ln C, from 0 (sure) to 1. confidence: max_c p, from 1 / C to 1 (sure)."""


class Rule(Protocol):
    """score: of a pixel. images: how many share a threshold, in the data set's order; the last ones may be fewer.
    softmax: whether logits become probabilities before they are upsampled to the labels' size, or after.
    """

    score: ClassVar[Score]
    images: Literal["all"] | int
    softmax: Softmax

    def index(self, pixels: int) -> int | None:
        """Which of a class's n >= 1 sorted scores makes its threshold, counted from 0; None for a rule without."""
        ...

    def threshold(self, found: float) -> float:
        """The threshold for that score; 0 is what is found of a class without pixels."""
        ...

    def drops(self, score: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        """Which pixels become IGNORE, as bools. Both arguments have the pixels' shape; threshold is float64."""
        ...


@dataclass(frozen=True, kw_only=True)
class EntropyMedian:
    """Drops pixels whose entropy is above max(entropy at `share` of the class's pixels, floor).

    share 0.5 is the upper median, by the authors' rounding (see `index_at`). Everything up to the floor is kept: of an
    easy class, far more than the share.  Saporta et al. 2020, sec. 3; esl_UDA.py.

    share: the place in the order of a class's pixels. floor: of the entropy, 0 to 1.
    images: how many share a threshold, in the data set's order; all, or a number.
    softmax: whether logits become probabilities before they are upsampled to the labels' size, or after.
    """

    share: float
    floor: float
    images: Literal["all"] | int
    softmax: Softmax = "before"
    score: ClassVar[Score] = "entropy"

    def __post_init__(self):
        _between_0_and_1(share=self.share, floor=self.floor)
        _some_images(self.images)

    def index(self, pixels: int) -> int:
        return index_at(self.share, pixels)

    def threshold(self, found: float) -> float:
        return max(found, self.floor)

    def drops(self, score: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        return score > threshold


@dataclass(frozen=True, kw_only=True)
class ConfidenceQuantile:
    """Drops pixels whose confidence is below min(confidence at `share` of the class's pixels, cap).

    Everything from the cap on is kept.

    share: counts from the least confident: 0.66 keeps the upper third. cap: of the confidence, 0 to 1.
    images: how many share a threshold, in the data set's order; all, or a number.
    softmax: whether logits become probabilities before they are upsampled to the labels' size, or after.
    """

    share: float
    cap: float
    images: Literal["all"] | int
    softmax: Softmax = "before"
    score: ClassVar[Score] = "confidence"

    def __post_init__(self):
        _between_0_and_1(share=self.share, cap=self.cap)
        _some_images(self.images)

    def index(self, pixels: int) -> int:
        return index_at(self.share, pixels)

    def threshold(self, found: float) -> float:
        return min(found, self.cap)

    def drops(self, score: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        return score < threshold


@dataclass(frozen=True, kw_only=True)
class Fixed:
    """Drops pixels whose confidence is below `level`.

    level: of the confidence, 0 to 1.
    softmax: whether logits become probabilities before they are upsampled to the labels' size, or after.
    """

    level: float
    softmax: Softmax = "before"
    images: ClassVar[Literal["all"]] = "all"
    score: ClassVar[Score] = "confidence"

    def __post_init__(self):
        _between_0_and_1(level=self.level)

    def index(self, pixels: int) -> None:
        return None

    def threshold(self, found: float) -> float:
        return self.level

    def drops(self, score: np.ndarray, threshold: np.ndarray) -> np.ndarray:
        return score < threshold


RULES: dict[str, type] = {
    "entropy-median": EntropyMedian,
    "class-median": ConfidenceQuantile,
    "quantile": ConfidenceQuantile,
    "fixed": Fixed,
}


def labels_kept(rule: Rule, label: np.ndarray, score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(h, w) predicted train ids and their scores, (C,) float64 thresholds -> (h, w) train ids, IGNORE where dropped.

    Compared in float64: 0.1 as float32 is a little more than 0.1, and a pixel of just that entropy is above the floor.
    """
    return np.where(rule.drops(score, thresholds[label]), np.uint8(IGNORE), label)


def _between_0_and_1(**settings: float) -> None:
    for key, value in settings.items():
        if not 0 <= value <= 1:
            raise RecipeError(f"rule.{key}: {value} is not between 0 and 1")


def _some_images(images: Literal["all"] | int) -> None:
    if images != "all" and images < 1:
        raise RecipeError(f"rule.images: {images}; write all, or how many images share a threshold, at least 1")


def shipped_rules() -> dict[str, dict[str, Any]]:
    """The settings of each rule in rules.yaml, by its name."""
    return yaml.safe_load((files("segda.pseudo_labelling") / "rules.yaml").read_text(encoding="utf-8"))


def rule_spec(rule: str | Mapping[str, Any], changes: Sequence[str] = ()) -> dict[str, Any]:
    """A rule's name, or a mapping of its name and settings -> all of them; a bare name has the shipped settings.

    changes: "KEY=VALUE", the value in YAML. RecipeError for an unknown rule or setting.
    """
    return check(RULES, changed(rule, shipped_rules(), changes, "--set"), "rule", ())
