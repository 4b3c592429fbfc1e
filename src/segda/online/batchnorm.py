"""Batch norm whose statistics move to the stream's: nothing is learnt (Schneider et al., NeurIPS 2020; AdaBN online).

    mean = (N mean_run + sum_t mean_t) / (N + t)

after t images, and the variance of all these values (`Moments`, evaluation/statistics.py): the run's own statistics
count as N images, `prior`. With --episodic each image has t = 1, as in the paper with batches of one. An image counts
before it is predicted. `segda evaluate --statistics` is the same for a whole set at once, without the run's own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from segda.errors import RecipeError
from segda.evaluation.inference import View
from segda.evaluation.look import Eye, Sight
from segda.evaluation.statistics import Moments, learning_norms
from segda.online.online import Online


class BatchNorm(Online):
    """prior: so many images count the run's own statistics; 0: the stream's alone. Which norms: those that learnt
    statistics in training (`learning_norms`).
    """

    def __init__(self, eye: Eye, *, prior: float):
        super().__init__(eye)
        if not 0 <= prior < float("inf"):
            raise RecipeError(f"batchnorm.prior: must be a number of images, 0 or more (got {prior})")
        self.prior = prior
        self.norms = learning_norms(self.network, "the network", "use another --method")
        self.network.eval()
        self.start = {
            norm: (_known(norm.running_mean).clone(), _known(norm.running_var).clone()) for norm in self.norms
        }
        for norm in self.norms:
            norm.register_forward_hook(self._normalise)
            # The convolution before it must not take it in, see EfficientNet-Lite; what it gives is replaced.
            norm.training, norm.track_running_stats = True, False
        self.reset()

    def told(self, sight: Sight) -> Sequence[View]:
        return sight.views

    def reset(self) -> None:
        self.moments: dict[_BatchNorm, Moments] = {}

    @torch.no_grad()
    def _normalise(self, norm: _BatchNorm, given: tuple[Tensor], _: Tensor) -> Tensor:
        """What the norm gives with the statistics of all that it has seen, this included."""
        values = given[0]
        if norm not in self.moments:
            count = values.numel() // values.shape[1]
            self.moments[norm] = Moments(norm.num_features)
            self.moments[norm].begin(*self.start[norm], round(self.prior * count))
        moments = self.moments[norm]
        moments.add(values)
        mean, variance = (part.to(values.device, torch.float32) for part in (moments.mean, moments.variance))
        weight, bias = norm.weight, norm.bias
        return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=norm.eps)


def _known(statistics: Tensor | None) -> Tensor:
    assert statistics is not None, "of norms that keep statistics"
    return statistics
