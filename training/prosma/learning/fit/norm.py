"""Instance norm that trains fast on a CPU: PyTorch's forward pass with a backward pass of its own.

PyTorch's backward of GroupNorm takes 2 to 4 times as long as the sums that it consists of when the channels lie last
(34 against 9 ms for 8 x 16 x 128 x 128 on one core), which adds up to a tenth and more of a training step.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class InstanceNormFunction(torch.autograd.Function):
    """Group norm with one channel a group, (B, C, S); weight and bias (C,) or both None."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        batch, channels = x.shape[:2]
        y, mean, rstd = torch.native_group_norm(x, weight, bias, batch, channels, x[0, 0].numel(), channels, eps)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """With h = (x - mean) rstd: dL/dx = weight rstd (g - mean(g) - h mean(g h)), all means over S."""
        x, weight, mean, rstd = ctx.saved_tensors
        mean, rstd = mean[:, None], rstd[:, None]  # (B, 1, C)
        voxels, slopes = channels_last_rows(x), channels_last_rows(gradient)
        count = voxels.shape[1]
        ones = voxels.new_ones(1, count)
        total = ones @ slopes
        projection = (ones @ (slopes * voxels) - mean * total) * rstd
        scale = rstd if weight is None else rstd * weight
        slope = -scale * rstd * projection / count
        offset = -scale * total / count - slope * mean
        rows = torch.addcmul(offset, voxels, slope).addcmul_(slopes, scale)
        dx = rows.unflatten(1, x.shape[2:]).movedim(-1, 1)
        if weight is None:
            return dx, None, None, None
        return dx, projection.sum((0, 1)), total.sum((0, 1)), None


def channels_last_rows(x: Tensor) -> Tensor:
    """(B, C, S) -> (B, voxels, C), a view where the channels lie last in memory."""
    return x.movedim(1, -1).flatten(1, -2)


class TrainedInstanceNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` with one channel a group and the faster backward pass on a CPU in float32."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu" and x.dtype == torch.float32 and torch.is_grad_enabled():
            return InstanceNormFunction.apply(x, self.weight, self.bias, self.eps)
        return super().forward(x)


def use_fast_norm(network: nn.Module) -> None:
    """Give every instance norm of ``network`` the faster backward pass; names and weights stay as they are."""
    for module in network.modules():
        if type(module) is nn.GroupNorm and module.num_groups == module.num_channels:
            module.__class__ = TrainedInstanceNorm
