"""What the self-training methods have: a teacher, class mix and its recolouring, features held near the start's.

DACS (Tranheden et al., WACV 2021) brought the teacher and the mix, DAFormer (Hoyer et al., CVPR 2022) the feature
distance. Each method's step says what it does with them, in the order of its paper.
"""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.networks.network import Network, Output
from segda.parts.feature_distance import AtStart, FeatureDistance, FeatureDistanceSettings
from segda.parts.mixing import ClassesOf
from segda.parts.photometric import Photometric
from segda.parts.teacher import Teacher
from segda.scene import Scene

PRODUCTS = {"student": "student", "teacher": "parts.teacher.network"}
"""Of a method whose `parts` these are."""

CONSTANTS = ("parts.feature_distance",)
"""Of one that holds features."""


class MixSettings(TypedDict):
    """Settings of all methods of the family."""

    decay: float
    """Of the teacher, see its `follow`."""
    threshold: float
    """How probable its class must be for a pixel to count as confident."""
    classes_of: ClassesOf
    """Where the classes to paste are drawn from, see `paste_mask`."""
    photometric: Photometric
    """How mixed images are recoloured and blurred."""


class HeldSettings(MixSettings):
    """The same, for the methods that hold features."""

    feature_distance: FeatureDistanceSettings | None
    """None holds none, for a network that does not start from pretrained weights."""


class SelfTraining(nn.Module):
    """The parts of a self-training method around its student."""

    def __init__(
        self,
        student: Network,
        *,
        decay: float,
        threshold: float,
        classes_of: ClassesOf,
        photometric: Photometric,
        feature_distance: FeatureDistanceSettings | None = None,
    ):
        super().__init__()
        self.teacher = Teacher(student, decay)
        self.threshold = threshold
        self.classes_of = classes_of
        self.photometric = photometric
        self.feature_distance = None if feature_distance is None else FeatureDistance(student, feature_distance)

    def at_start(self, source: Scene, share: Share) -> AtStart | None:
        """The features that the student's must stay near. Asked before its forward pass, see distributed/shares.py."""
        return None if self.feature_distance is None else self.feature_distance.at_start(source, share)

    def held(self, output: Output, start: AtStart | None) -> dict[str, Tensor]:
        """The term that holds them, where the settings ask for it."""
        if self.feature_distance is None or start is None:
            return {}
        return {"feature_distance": self.feature_distance(output, start)}
