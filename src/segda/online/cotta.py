"""CoTTA: a student learns from its own mean over time, and some of its weights return to their start (Wang et al.,
CVPR 2022).

As in the authors' code (qinenergy/cotta, cifar/cotta.py): the prediction is the teacher's; where the network as it was
is not sure of an image, the teacher's is the mean of its logits over augmented views. For segmentation these are
scales, each mirrored too, as in the paper; the code for it is in no repository, and no number of it is known here.
All weights learn. The teacher's mean is over weights; batch norms normalise by the image's own statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor

from segda.errors import RecipeError
from segda.evaluation.certainty import labels_and_confidence, mean_logits
from segda.evaluation.inference import Settings, Size, View, views
from segda.evaluation.look import Eye, Sight
from segda.networks.network import Network
from segda.online.online import Learning, logits_of, numbers, use_own_statistics
from segda.recipes.keys import Evaluate


class CoTTA(Learning):
    """decay: of the teacher. restore: the probability of a weight to return to its start after a step. level: mean
    confidence of the network as it was, below which the teacher is asked at all `scales`.
    """

    def __init__(
        self,
        eye: Eye,
        *,
        lr: float,
        betas: tuple[float, float],
        decay: float,
        restore: float,
        level: float,
        scales: tuple[float, ...],
    ):
        numbers({"lr": lr}, "cotta")
        for name, value in {"decay": decay, "restore": restore, "level": level}.items():
            if not 0 <= value <= 1:
                raise RecipeError(f"cotta.{name}: must be from 0 to 1 (got {value})")
        self.teacher, self.anchor = deepcopy(eye.network), deepcopy(eye.network)
        for network in (self.teacher, self.anchor):
            use_own_statistics(network)
            network.requires_grad_(False)
        super().__init__(eye, [*eye.network.parameters()], lr, betas)
        self.decay, self.restore, self.level = decay, restore, level
        assert isinstance(eye.settings, Evaluate)
        self.augmented = eye.settings.model_copy(update={"scales": scales, "flip": True})
        self.generator = torch.Generator().manual_seed(0)

    def told(self, sight: Sight) -> Sequence[View]:
        eye, image = self.eye, sight.scene.image
        _, confidence = labels_and_confidence(self._seen(self.anchor, image, eye.settings), sight.size)
        sure = float(confidence.mean()) >= self.level
        prediction = self._seen(self.teacher, image, eye.settings if sure else self.augmented)
        self.descend(distance(sight.views, prediction, sight.size))
        self._follow()
        self._restore()
        logits = together(prediction, sight.size)
        return [View(logits[None], eye.network.align_corners)]

    def reset(self) -> None:
        super().reset()
        self.teacher.load_state_dict(self.anchor.state_dict())
        self.generator.manual_seed(0)

    def _seen(self, network: Network, image: Tensor, settings: Settings) -> list[View]:
        return views(network, image, settings, self.eye.device, self.eye.autocast)

    @torch.no_grad()
    def _follow(self) -> None:
        """teacher = decay teacher + (1 - decay) student, of all weights."""
        for own, other in zip(self.teacher.parameters(), self.network.parameters(), strict=True):
            own.lerp_(other, 1 - self.decay)

    @torch.no_grad()
    def _restore(self) -> None:
        for parameter, value in zip(self.learns, self.start, strict=True):
            # Drawn on the host: the same on each device.
            back = torch.rand(parameter.shape, generator=self.generator) < self.restore
            parameter.copy_(torch.where(back.to(parameter.device), value, parameter))


def together(seen: Sequence[View], size: Size) -> Tensor:
    """(C, H, W): the mean of the views' logits."""
    return torch.stack(list(mean_logits(seen, size)))


def distance(seen: Sequence[View], teacher: Sequence[View], size: Size) -> Tensor:
    """mean_n -sum_c q_c ln p_c over the pixels of the image: p of the views, by their weight, q the teacher's."""
    aim, whole = together(teacher, size).softmax(0), sum(view.weight for view in seen)
    found = [-view.weight / whole * (aim * logits_of(view, size).log_softmax(0)).sum(0).mean() for view in seen]
    return torch.stack(found).sum()
