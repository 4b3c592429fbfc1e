"""Batch norm over the scenes of all processes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segda.distributed import group


class _Total(torch.autograd.Function):
    """The sum over the processes, for the processor; its gradient is the sum of the processes' gradients."""

    @staticmethod
    def forward(_, value: Tensor) -> Tensor:
        return group.summed(value)

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return group.summed(gradient)


class SyncNorm(nn.SyncBatchNorm):
    """torch's own on an accelerator; on the processor, where it refuses to work, the same in a few lines.

    In training, with n values of a channel in all processes together: mean = sum x / n, var = sum (x - mean)^2 / n,
    y = (x - mean) / sqrt(var + eps) * weight + bias; the running variance takes n / (n - 1) var in. As batch norm.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> SyncNorm:
        """One with the weights, buffers and mode of a plain batch norm; the very tensors."""
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
        made._parameters, made._buffers = norm._parameters, norm._buffers
        return made.train(norm.training)

    def forward(self, maps: Tensor) -> Tensor:
        if maps.device.type != "cpu":
            return super().forward(maps)
        if not self.training:
            return F.batch_norm(maps, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        x = maps.float()
        count = x.numel() / x.shape[1] * group.world()
        mean = _Total.apply(x.sum((0, 2, 3))) / count
        centred = x - mean[:, None, None]
        variance = _Total.apply(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach() * (count / (count - 1)))
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        # Our networks' batch norms all keep running statistics, with a momentum.
        assert self.num_batches_tracked is not None and self.momentum is not None
        assert self.running_mean is not None and self.running_var is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)
