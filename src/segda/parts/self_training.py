"""What the self-training methods have: a teacher, class mix and its recolouring, features held near the start's, masks.

DACS (Tranheden et al., WACV 2021) brought the teacher and the mix, DAFormer (Hoyer et al., CVPR 2022) the feature
distance, MIC (Hoyer et al., CVPR 2023) the masked pass. Each method's step says what it does with them, in the order of
its paper.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NotRequired, TypedDict

from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RecipeError
from segda.networks.network import Network, Output
from segda.parts.colour_transfer import PasteColours, with_colours_of
from segda.parts.entropy import entropy_summary
from segda.parts.feature_distance import AtStart, FeatureDistance, FeatureDistanceSettings
from segda.parts.masking import Masking, MaskingSettings
from segda.parts.mixing import ClassesOf, class_mix
from segda.parts.photometric import Colours, Images, photometric
from segda.parts.pseudo import Rule, Selection
from segda.parts.teacher import Teacher
from segda.scene import Batch, Scene

PRODUCTS = {"student": "student", "teacher": "parts.teacher.network"}
"""Of a method whose `parts` these are."""

CONSTANTS = ("parts.feature_distance",)
"""Of one that holds features."""


class MixSettings(TypedDict):
    """Settings of all methods of the family."""

    decay: float
    """Of the teacher, see its `follow`."""
    threshold: float
    """How probable its class must be for a pixel to count as confident; with `selection: class-entropy` nats."""
    classes_of: ClassesOf
    """Where the classes to paste are drawn from, see `paste_mask`."""
    photometric: Colours
    """How mixed images are recoloured and blurred."""
    selection: NotRequired[Rule]
    """Which pixels of the pseudo-labels count, see parts/pseudo.py; `fraction`, as published, if it is left out."""
    selection_momentum: NotRequired[float | None]
    """Of the running medians of the rules by class; None takes those of the step."""
    begin: NotRequired[int]
    """So many steps train on the source alone before self-training begins; 0 if it is left out."""
    source_photometric: NotRequired[Colours | None]
    """How source images are recoloured and blurred, outside the mix; None leaves them as they are."""
    target_photometric: NotRequired[Colours | None]
    """How target images are recoloured before classes are pasted into them; None leaves them as they are."""
    paste_colours: NotRequired[PasteColours]
    """Whose colours the pasted pixels have, see parts/colour_transfer.py; `source`, their own, if it is left out."""
    teacher_mirror: NotRequired[bool]
    """Whether the teacher says the mean of an image's probabilities and its mirror image's."""
    teacher_after: NotRequired[bool]
    """Whether the teacher follows after a step, counted from there, see its `follow`."""


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
        photometric: Colours,
        selection: Rule = "fraction",
        selection_momentum: float | None = None,
        begin: int = 0,
        source_photometric: Colours | None = None,
        target_photometric: Colours | None = None,
        paste_colours: PasteColours = "source",
        teacher_mirror: bool = False,
        teacher_after: bool = False,
        feature_distance: FeatureDistanceSettings | None = None,
        masking: MaskingSettings | None = None,
    ):
        super().__init__()
        if begin < 0:
            raise RecipeError(f"method.begin: {begin} is negative; give the number of the first step of self-training")
        self.teacher = Teacher(student, decay, mirror=teacher_mirror, after=teacher_after)
        self.select = Selection(
            len(student.class_names), rule=selection, threshold=threshold, momentum=selection_momentum
        )
        self.classes_of = classes_of
        self.begin = begin
        self.photometric = photometric
        self.source_photometric = source_photometric
        self.target_photometric = target_photometric
        self.paste_colours = paste_colours
        self.feature_distance = None if feature_distance is None else FeatureDistance(student, feature_distance)
        self.masking = None if masking is None else Masking(student, masking, photometric)

    def follow(self, student: Network, batch: Batch, t: int) -> None:
        """The teachers follow the student, see Teacher. Called first in a step, also before self-training begins: so a
        batch that cannot be masked is refused at once.
        """
        self.teacher.follow(student, t, batch.share)
        if self.masking is not None:
            self.masking.follow(student, batch, t)

    def source(self, scene: Scene, share: Share) -> Scene:
        """The source scene as the student sees it: recoloured, where the settings ask for it, as source_only does."""
        if self.source_photometric is None:
            return scene
        return scene.replace(image=photometric(scene.image, self.source_photometric, share=share))

    def labelled(self, batch: Batch) -> tuple[Scene, dict[str, Tensor]]:
        """The target with the teacher's labels and the weights of the selection. With it what the log says of it: the
        confident share, the teacher's entropy.
        """
        logits = self.teacher(batch.target.image)
        pseudo = self.select(logits, batch.target, batch.share)
        return pseudo, {"confident": self.select.confident(pseudo)} | entropy_summary("target", logits)

    def mixed(self, batch: Batch, pseudo: Scene) -> Scene:
        """What self-training learns from: half of the source's classes pasted into the labelled target; recoloured and
        blurred, with other draws than the source's.
        """
        share = batch.share
        if self.target_photometric is not None:
            pseudo = pseudo.replace(
                image=photometric(pseudo.image, self.target_photometric, share=share, which="target")
            )
        source = batch.source
        if self.paste_colours == "target":
            source = source.replace(image=with_colours_of(source.image, pseudo.image))
        mixed = class_mix(source, pseudo, classes_of=self.classes_of, share=share)
        which: Images = "" if self.source_photometric is None else "second"
        return mixed.replace(image=photometric(mixed.image, self.photometric, share=share, which=which))

    def masked(self, student: Network, batch: Batch, pseudo: Scene) -> Iterator[dict[str, Tensor]]:
        """The masked passes, where the settings ask for them: a yield each, after that of the mix."""
        if self.masking is not None:
            yield from self.masking(student, batch, pseudo)

    def at_start(self, source: Scene, share: Share) -> list[AtStart] | None:
        """The features that the student's must stay near. Asked before its forward pass, see distributed/shares.py."""
        return None if self.feature_distance is None else self.feature_distance.at_start(source, share)

    def held(self, output: Output, start: list[AtStart] | None) -> dict[str, Tensor]:
        """The term that holds them, where the settings ask for it."""
        if self.feature_distance is None or start is None:
            return {}
        return {"feature_distance": self.feature_distance(output, start)}
