"""Source-free: a trained network goes on learning on target images alone (segda's own composition).

No source image is there any more, but a network that was trained on them (`start`). What it says of the target teaches
it, by parts of other methods:

- a mean teacher (Tarvainen and Valpola 2017) labels the target; a rule of parts/pseudo.py chooses the pixels that
  count, as ESL chooses by entropy and class (Saporta et al. 2020);
- the student must say the same of images of which most is masked (MIC, Hoyer et al. 2023);
- the student is to be sure of each pixel, by MinEnt's mean entropy (Vu et al. 2019) or FDA's robust one (Yang and
  Soatto 2020), and all pixels together are to show many classes. Without the second, one class for all of them would be
  the surest. The two are information maximisation, as SHOT has it (Liang, Hu and Feng, ICML 2020).

    for each step t:
        teacher <- mean of the student's weights
        label the target with the teacher, or as the recipe's folder has it; select pixels
        minimise cross entropy on the recoloured target (+ entropy + diversity)
        minimise cross entropy on the masked target

SHOT keeps the classifier as it was and labels by clusters of features; none of that is here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal, Self

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segda.errors import RecipeError
from segda.methods.method import Method, Need
from segda.networks.network import Network, of_each_head
from segda.parts.entropy import diversity, entropy_summary, mean_entropy, robust_entropy
from segda.parts.losses import supervised
from segda.parts.masking import Masking, MaskingSettings
from segda.parts.photometric import Colours, photometric
from segda.parts.pseudo import Rule, Selection
from segda.parts.teacher import Teacher
from segda.scene import IGNORE, Batch, Scene

Statistics = Literal["target", "trained", "frozen"]
"""What batch norms normalise by, and which statistics they keep. trained: student and teacher each by the images of a
step, and follow them, also those that are recoloured and masked. target: the teacher's do, by images as they are, and
the student's have what the teacher's keep. frozen: both by those of the start."""


class SourceFree(Method):
    """decay: of the teacher. hold: so many steps the teacher stays what the student began with.

    selection, threshold, selection_momentum: which pixels of its labels count, see parts/pseudo.py.
    photometric: how images are recoloured and blurred. augment: whether those that are not masked are.
    pseudo_weight: factor of the cross entropy with the labels; 0 leaves it out.
    entropy_weight: factor of each head's entropy; 0 leaves it out. eta: of the robust entropy; None takes the mean.
    diversity_weight: factor of the diversity; 0 leaves it out. masking: a masked pass; None has none.
    norm: what batch norms know, see Statistics.
    """

    products: ClassVar = {"student": "student", "teacher": "teacher.network"}
    source: ClassVar[Need] = "never"
    target_labels = "may"
    start = "must"

    def __init__(
        self,
        student: Network,
        *,
        decay: float,
        hold: int,
        selection: Rule,
        threshold: float,
        selection_momentum: float | None,
        photometric: Colours,
        augment: bool,
        pseudo_weight: float,
        entropy_weight: dict[str, float | None],
        eta: float | None,
        diversity_weight: float,
        masking: MaskingSettings | None,
        norm: Statistics,
    ):
        super().__init__()
        self.entropy_weight = of_each_head(student, "entropy_weight", entropy_weight)
        weights = {f"entropy_weight.{head}": weight for head, weight in self.entropy_weight.items()}
        weights |= {"pseudo_weight": pseudo_weight, "diversity_weight": diversity_weight}
        _refuse_unfit(weights, masking)
        if hold < 0:
            raise RecipeError(f"method.hold: {hold} is negative; give the steps for which the teacher stays as it is")
        if eta is not None and not eta > 0:
            raise RecipeError(f"method.eta: {eta} is not above 0; FDA's is 2, null takes the mean entropy")
        self.student = student
        self.hold, self.photometric, self.augment, self.eta, self.norm = hold, photometric, augment, eta, norm
        self.pseudo_weight, self.diversity_weight = pseudo_weight, diversity_weight
        self.looks = any(weight > 0 for weight in weights.values())
        self.teacher = Teacher(student, decay)
        self.select = Selection(student.classes, rule=selection, threshold=threshold, momentum=selection_momentum)
        self.masking = None if masking is None else Masking(student, masking, photometric)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for norm in norms_of(self.student) if self.norm != "trained" else ():
            norm.eval()
        for norm in norms_of(self.teacher) if self.norm == "frozen" else ():
            norm.eval()
        return self

    def step(self, batch: Batch, t: int) -> Iterator[dict[str, Tensor]]:
        if t == 0 or t >= self.hold:
            self.teacher.follow(self.student, t, batch.share)
        pseudo, terms = self.labelled(batch)
        if self.looks:
            yield terms | self.seen(batch, pseudo)
            terms = {}
        if self.masking is not None:
            for masked in self.masking(self.student, batch, pseudo):
                yield terms | masked
                terms = {}

    def labelled(self, batch: Batch) -> tuple[Scene, dict[str, Tensor]]:
        """The target with its pseudo-labels; for the log, the share of pixels that count and the teacher's entropy."""
        logits = self.teacher(batch.target.image)
        if self.norm == "target":
            for ours, theirs in zip(norms_of(self.student), norms_of(self.teacher), strict=True):
                ours.load_state_dict(dict(ours.named_parameters()) | dict(theirs.named_buffers()))
        terms = entropy_summary("target", logits)
        if batch.target.label is not None:
            return batch.target, {"confident": (batch.target.label != IGNORE).float().mean()} | terms
        pseudo = self.select(logits, batch.target, batch.share)
        return pseudo, {"confident": self.select.confident(pseudo)} | terms

    def seen(self, batch: Batch, pseudo: Scene) -> dict[str, Tensor]:
        """The terms on images that are not masked."""
        image, share = batch.target.image, batch.share
        if self.augment:
            image = photometric(image, self.photometric, share=share, which="target")
        output = self.student(image)
        terms = {}
        if self.pseudo_weight > 0:
            terms["pseudo"] = self.pseudo_weight * supervised(output, pseudo, over="all", share=share)
        for name, head in output.heads.items():
            if (weight := self.entropy_weight[name]) > 0 and self.eta is None:
                terms[f"entropy/{name}"] = weight * mean_entropy(head.logits)
            elif weight > 0 and self.eta is not None:
                terms[f"robust_entropy/{name}"] = weight * robust_entropy(head.logits, self.eta)
        if self.diversity_weight > 0:
            terms["diversity"] = self.diversity_weight * diversity(output.logits, share)
        return terms


def norms_of(part: nn.Module) -> list[_BatchNorm]:
    """All batch norms in it."""
    return [module for module in part.modules() if isinstance(module, _BatchNorm)]


def _refuse_unfit(weights: Mapping[str, float], masking: MaskingSettings | None) -> None:
    """RecipeError for a factor below 0, for nothing that is learnt, and for masks of what is not there."""
    for key, weight in weights.items():
        if weight < 0:
            raise RecipeError(f"method.{key}: {weight} is below 0; give 0, which leaves the term out, or more")
    if masking is None and not any(weights.values()):
        raise RecipeError(
            "method: nothing is learnt: masking is null and all weights are 0; set one, such as pseudo_weight: 1"
        )
    if masking is not None and masking.mode != "target":
        raise RecipeError(
            f"method.masking.mode: {masking.mode} masks images of the source, and there is none; set target"
        )
