"""Depthwise convolutions without what torch is slow at on processors.

torch 2.13 takes long for the backward pass of a depthwise convolution in bfloat16: 27.6 ms for 1152 channels of 6x8
cells with 5x5 kernels, where the sum over the taps takes 2.3 ms (two threads of an AMD EPYC with avx512_bf16).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def convolved(cells: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int) -> Tensor:
    """F.conv2d. In training in bfloat16 on a processor a depthwise one with a stride is computed in float32, and the
    gradient of a 5x5 kernel is summed up tap by tap.
    """
    slow = cells.device.type == "cpu" and cells.dtype == torch.bfloat16 and torch.is_grad_enabled()
    if not slow or groups == 1 or (stride == 1 and weight.shape[-1] <= 3):
        return F.conv2d(cells, weight, bias, stride, padding, 1, groups)
    if stride > 1:
        with torch.autocast("cpu", enabled=False):
            bias = None if bias is None else bias.float()
            return F.conv2d(cells.float(), weight.float(), bias, stride, padding, 1, groups).to(cells.dtype)
    made = Depthwise.apply(cells, weight.to(cells.dtype), padding)
    return made if bias is None else made + bias.to(cells.dtype)[:, None, None]


class Depthwise(torch.autograd.Function):
    """A depthwise convolution of stride 1: (B, c, H, W) and (c, 1, k, k) -> (B, c, H, W).

    The gradient of the kernel is, for each tap, the sum over images and cells of the shifted input times the output's
    gradient, in float32.
    """

    @staticmethod
    def forward(ctx: Any, cells: Tensor, weight: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(cells, weight)
        ctx.padding = padding
        return F.conv2d(cells, weight, None, 1, padding, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        cells, weight = ctx.saved_tensors
        padding, kernel, channels = ctx.padding, weight.shape[-1], len(weight)
        back = torch.ops.aten.convolution_backward(
            gradient, cells, weight, None, [1, 1], [padding] * 2, [1, 1], False, [0, 0], channels, [True, False, False]
        )[0]
        padded = F.pad(cells, [padding] * 4).permute(0, 2, 3, 1).float()
        out = gradient.permute(0, 2, 3, 1).float()
        height, width = out.shape[1:3]
        taps = [
            (padded[:, y : y + height, x : x + width] * out).sum((0, 1, 2))
            for y in range(kernel)
            for x in range(kernel)
        ]
        return back, torch.stack(taps, 1).reshape(weight.shape).to(weight.dtype), None
