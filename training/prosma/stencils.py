"""The sum of depthwise convolutions of several dilations, as one stencil or in other ways that never dilate in 3D.

oneDNN has no fast dilated depthwise convolution in 3D: at 16 channels and 96^3 one of dilation 2 takes ten to forty times
as long as one of dilation 1. Which of these ways is fastest depends on the processor and the precision; `tuning` finds out.
"""

from __future__ import annotations

import math
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
        self.one = merged(self.kernels, self.dilations)
        self.ways = {"merged": self.merged}
        if any(scale.dilation[0] > 1 and set(scale.kernel_size) != {1} for scale in scales):
            in_3d = self.one.ndim == 5
            self.ways |= {"planes": self.planes, "folded": self.folded} if in_3d else {"dilated": self.dilated}

    def merged(self, q: Tensor) -> Tensor:
        """All scales as one larger kernel, zero between the taps."""
        return channels_last(depthwise(q, self.one))

    def dilated(self, q: Tensor) -> Tensor:
        """One dilated convolution after the other."""
        total = channels_last(depthwise(q, self.kernels[0], self.dilations[0]))
        for kernel, dilation in zip(self.kernels[1:], self.dilations[1:], strict=True):
            add_depthwise(total, q, kernel, dilation)
        return total

    def planes(self, q: Tensor) -> Tensor:
        """Of 3D: 2D convolutions of all planes at once, each added to the planes that its part of a kernel is for.

        In 2D oneDNN dilates at no cost in float32.
        """
        results = [self._planes_of(sample) for sample in q.movedim(2, 1)]
        return channels_last((torch.stack(results) if len(results) > 1 else results[0][None]).movedim(1, 2))

    def _planes_of(self, sample: Tensor) -> Tensor:
        """`planes` for (planes, C, S) of one sample."""
        total = channels_last(depthwise(sample, self.one[:, :, self.one.shape[2] // 2]))
        for kernel, dilation in zip(self.kernels, self.dilations, strict=True):
            for number in range(kernel.shape[2]):
                away = (number - kernel.shape[2] // 2) * dilation
                if 0 < abs(away) < len(sample):
                    to, of = (slice(max(0, sign * away), len(sample) + min(0, sign * away)) for sign in (-1, 1))
                    add_depthwise(total[to], sample[of], kernel[:, :, number], dilation)
        return total

    def folded(self, q: Tensor) -> Tensor:
        """Convolutions without dilation on views in which voxels that lie a dilation apart are neighbours.

        In memory an axis of n voxels is also one of n / d by d. The d offsets join the axis after it (or the channels),
        where they are other parts of the same rows. Zeros behind each row keep its ends apart from the next part's.
        """
        steps = [
            [dilation if size > 1 else 1 for size in kernel.shape[2:]]
            for kernel, dilation in zip(self.kernels, self.dilations, strict=True)
        ]
        zeros = [0, *(size // 2 for size in self.one.shape[3:])]  # the convolution itself pads the first axis
        units = [math.lcm(*along) for along in zip(*steps, strict=True)]
        sizes = [-(-(n + m) // unit) * unit for n, m, unit in zip(q.shape[2:], zeros, units, strict=True)]
        inside = (..., *(slice(n) for n in q.shape[2:]))
        padded = q.new_empty(len(q), *sizes, q.shape[1]).movedim(-1, 1)
        for axis, n in enumerate(q.shape[2:], start=2):
            padded.narrow(axis, n, padded.shape[axis] - n).zero_()
        padded[inside] = q
        total = None
        for kernel, step in zip(self.kernels, steps, strict=True):
            wide = kernel.repeat(step[-1], *[1] * (kernel.ndim - 1))
            if total is None:
                result = channels_last(depthwise(folded_view(padded, step), wide))
                total = result.movedim(1, -1).view(padded.movedim(1, -1).shape).movedim(-1, 1)
            else:
                add_depthwise(folded_view(total, step), folded_view(padded, step), wide)
        return channels_last(total[inside])


def depthwise(q: Tensor, kernel: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise convolution that keeps the shape; kernel (C, 1, odd sizes)."""
    sizes = kernel.shape[2:]
    padding = [dilation * (size // 2) for size in sizes]
    return torch.mkldnn_convolution(q, kernel, None, padding, [1] * len(sizes), [dilation] * len(sizes), len(kernel))


def add_depthwise(total: Tensor, q: Tensor, kernel: Tensor, dilation: int = 1) -> None:
    """total += `depthwise`, in one pass."""
    sizes = kernel.shape[2:]
    padding, one, dilations = [dilation * (size // 2) for size in sizes], [1] * len(sizes), [dilation] * len(sizes)
    torch.ops.mkldnn._convolution_pointwise_.binary(
        total, q, channels_last(kernel), None, padding, one, dilations, len(kernel), "add", 1.0, None, [], None
    )


def folded_view(padded: Tensor, step: Sequence[int]) -> Tensor:
    """Channels-last (B, C, X, Y, Z) as (B, dz C, X / dx, dx Y / dy, dy Z / dz)."""
    joined, shape = 1, [len(padded)]
    for size, d in zip(padded.shape[2:], step, strict=True):
        shape.append(joined * size // d)
        joined = d
    return padded.movedim(1, -1).view(*shape, joined * padded.shape[1]).movedim(-1, 1)


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
