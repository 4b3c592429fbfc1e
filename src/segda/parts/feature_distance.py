"""Feature distance: features stay near the student's own start, all or those of chosen classes (DAFormer, sec. 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from segda.distributed.shares import Share
from segda.errors import RecipeError, nearest
from segda.ground.ignore import IGNORE
from segda.networks.network import Network, Output
from segda.scene import Scene


class FeatureDistanceSettings(BaseModel):
    """What is held, and how hard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weight: float = Field(gt=0)
    """lambda_FD, the factor of the distance in the loss."""
    classes: tuple[str, ...] | None = Field(min_length=1)
    """Names of the classes whose cells are held (the "thing" classes); None holds all cells, whatever their label."""
    min_share: float | None = Field(None, gt=0, le=1)
    """r: the share of a cell that one class must fill for the cell to count as that class; with `classes`."""

    @model_validator(mode="after")
    def _a_share_belongs_to_classes(self) -> FeatureDistanceSettings:
        if self.classes is not None and self.min_share is None:
            raise ValueError("classes need min_share, the share of a cell that one of them must fill")
        if self.classes is None and self.min_share is not None:
            raise ValueError("min_share has no effect where classes is null, which holds all cells; remove it")
        return self


@dataclass(frozen=True, slots=True)
class AtStart:
    """One map at the start: features (B, D, h, w) as they were; held (B, h, w) bool: the cells that must stay so;
    cells: how many those are, or the mean number where the step's scenes are in shares.
    """

    features: Tensor
    held: Tensor
    cells: Tensor


class FeatureDistance(nn.Module):
    """A frozen copy of the network as it started, in evaluation mode."""

    ids: Tensor

    def __init__(self, student: Network, settings: FeatureDistanceSettings):
        super().__init__()
        for name in settings.classes or ():
            if name not in student.class_names:
                raise RecipeError(
                    f"method.feature_distance.classes: no class {name!r}{nearest(name, student.class_names)}"
                )
        self.settings = settings
        ids = torch.tensor([student.class_names.index(name) for name in settings.classes or ()], dtype=torch.int64)
        self.register_buffer("ids", ids, persistent=False)
        self.classes = student.classes
        self.network = copy.deepcopy(student).requires_grad_(False).eval()

    def train(self, mode: bool = True) -> FeatureDistance:
        self.training = mode
        return self

    @torch.no_grad()
    def at_start(self, source: Scene, share: Share) -> list[AtStart]:
        """What the network as it started says of the source images, a map each that is held. Asked before the student's
        forward pass, see distributed/shares.py.
        """
        found = []
        for features in self.network.held(source.image):
            held = self._held(source, features)
            found.append(AtStart(features, held, share.mean(held.sum())))
        return found

    def forward(self, output: Output, start: Sequence[AtStart]) -> Tensor:
        """weight * the sum over the maps that are held, mostly the coarsest alone, of the feature_distance between the
        student's of the source images and the start's (sum: lhoyer/HRDA, uda/dacs.py).
        """
        maps = output.held or output.features[-1:]
        distances = [
            feature_distance(features, then.features, then.held, then.cells)
            for features, then in zip(maps, start, strict=True)
        ]
        return self.settings.weight * torch.stack(distances).sum()

    def _held(self, source: Scene, features: Tensor) -> Tensor:
        """(B, h, w) bool: the cells of (B, D, h, w) features that must stay where they were."""
        if self.settings.min_share is None:
            return torch.ones_like(features[:, 0], dtype=torch.bool)
        assert source.label is not None
        cells = cell_labels(source.label, features.shape[-2:], self.settings.min_share, self.classes)
        return (cells[..., None] == self.ids).any(-1)


def cell_labels(label: Tensor, cells: Sequence[int], min_share: float, classes: int) -> Tensor:
    """(B, H, W) labels -> (B, h, w): the class that fills at least `min_share` of a cell's pixels, else IGNORE.

    A cell is H / h by W / w pixels (both must divide). Ignored pixels count as one more class, which never wins a cell.
    """
    known = torch.where(label == IGNORE, classes, label)
    one_hot = known[:, None] == torch.arange(classes + 1, device=label.device)[:, None, None]
    height, width = cells
    pooled = F.adaptive_avg_pool2d(one_hot.float(), (height, width))
    share, winner = pooled.max(1)
    return torch.where((winner == classes) | (share < min_share), IGNORE, winner)


def feature_distance(features: Tensor, start: Tensor, held: Tensor, cells: Tensor) -> Tensor:
    """sum over the held cells of || features - start ||_2 over channels, divided by `cells`, their number.

    (B, D, h, w) twice, held (B, h, w) bool. 0 without a held cell, where the authors' mean of nothing is NaN (with
    gradient 0). The norm's gradient at 0 is 0.
    """
    distance = (features.float() - start.float()).norm(dim=1)
    return torch.where(held, distance, 0).sum() / torch.where(cells == 0, 1, cells)
