"""The sum of depthwise convolutions of several dilations, as one stencil or in other ways that never dilate in 3D.

oneDNN has no fast dilated depthwise convolution in 3D: at 16 channels and 96^3 one of dilation 2 takes ten times as long
as one of dilation 1. Which of these ways is fastest depends on the processor; `tuning` finds out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .fastnorm import channels_last


class Stencil:
    """sum_d DW_d(q), zeros beyond the border, for channels-last q (B, C, S); the result is channels-last.

    Args:
        scales: the depthwise convolutions, without bias, each padded to keep the shape.
        dtype: float32 or bfloat16.
    """

    def __init__(self, scales: Sequence[nn.Module], dtype: torch.dtype) -> None:
        self.dilations = [scale.dilation[0] for scale in scales]
        self.kernels = [scale.weight.detach().to(dtype) for scale in scales]
        self.channels = len(self.kernels[0])
        self.dense = [scale.dilation[0] == 1 or set(scale.kernel_size) == {1} for scale in scales]
        self.one = merged(self.kernels, self.dilations)
        self.ways = {"merged": self.merged}
        if not all(self.dense):
            self.ways |= {"phases": self.phases} if self.one.ndim == 5 else {"dilated": self.dilated}

    def merged(self, q: Tensor) -> Tensor:
        """All scales as one larger kernel, zero between the taps."""
        return depthwise(q, self.one)

    def dilated(self, q: Tensor) -> Tensor:
        """One dilated convolution after the other."""
        total = depthwise(q, self.kernels[0], self.dilations[0])
        for kernel, dilation in zip(self.kernels[1:], self.dilations[1:], strict=True):
            total += depthwise(q, kernel, dilation)
        return total

    def phases(self, q: Tensor) -> Tensor:
        """Dilated by d, each d-th voxel sees each d-th: convolutions without dilation on every d-th plane and line.

        Along the last axis d neighbours count as d times the channels, so nothing needs to be picked apart there.
        """
        total = None
        for kernel, dense in zip(self.kernels, self.dense, strict=True):
            if dense:
                part = depthwise(q, kernel)
                total = part if total is None else total.add_(part)
        total = torch.zeros_like(q) if total is None else total
        for kernel, dilation, dense in zip(self.kernels, self.dilations, self.dense, strict=True):
            if not dense:
                add_phases(total, q, kernel, dilation)
        return total


def depthwise(q: Tensor, kernel: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise convolution that keeps the shape; kernel (C, 1, odd sizes)."""
    sizes = kernel.shape[2:]
    padding = [dilation * (size // 2) for size in sizes]
    return torch.mkldnn_convolution(q, kernel, None, padding, [1] * len(sizes), [dilation] * len(sizes), len(kernel))


def merged(kernels: Sequence[Tensor], dilations: Sequence[int]) -> Tensor:
    """One kernel (C, 1, ...) that does what the dilated ones do in sum."""
    radii = [
        max(dilation * (size // 2) for size, dilation in zip(sizes, dilations, strict=True))
        for sizes in zip(*(kernel.shape[2:] for kernel in kernels), strict=True)
    ]
    total = kernels[0].new_zeros(*kernels[0].shape[:2], *(2 * radius + 1 for radius in radii))
    for kernel, dilation in zip(kernels, dilations, strict=True):
        reach = [dilation * (size // 2) for size in kernel.shape[2:]]
        taps = [slice(r - n, r + n + 1, dilation) for r, n in zip(radii, reach, strict=True)]
        total[(..., *taps)] += kernel
    return total


def add_phases(total: Tensor, q: Tensor, kernel: Tensor, dilation: int) -> None:
    """total += the convolution of q with ``kernel`` dilated; (B, C, S) both, channels-last."""
    wide = kernel.repeat(dilation, *[1] * (kernel.ndim - 1))
    source, target = q.movedim(1, -1), total.movedim(1, -1)  # (B, S, C), contiguous
    width, channels = source.shape[-2:]
    columns = -(-width // dilation)
    for offsets in itertools.product(range(dilation), repeat=q.ndim - 3):
        every = (slice(None), *(slice(offset, None, dilation) for offset in offsets))
        lines = source[every]
        if not lines.numel():
            continue
        padded = lines.new_empty(*lines.shape[:-2], columns * dilation, channels)
        padded[..., :width, :] = lines
        padded[..., width:, :] = 0
        phase = padded.view(*lines.shape[:-2], columns, dilation * channels).movedim(-1, 1)
        result = channels_last(depthwise(phase, wide)).movedim(1, -1).reshape(padded.shape)
        target[every] += result[..., :width, :]
