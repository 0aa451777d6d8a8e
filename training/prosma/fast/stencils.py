"""The sum of depthwise convolutions of several dilations, as one stencil or in other ways that never dilate in 3D.

oneDNN has no fast dilated depthwise convolution in 3D: at 16 channels and 96^3 one of dilation 2 takes ten to forty times
as long as one of dilation 1. Which of these ways is fastest depends on the processor and the precision; `autotune` finds out.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .onednn import add_depthwise, channels_last, depthwise, scaled

SLOPE = 0.01  # of the LeakyReLU


class Stencil:
    """sum_d DW_d(LeakyReLU(q)), zeros beyond the border, for channels-last q (B, C, S); the result is channels-last.

    q is used up: it may hold anything afterwards.

    Args:
        scales: the depthwise convolutions, without bias, each padded to keep the shape.
        dtype: float32 or bfloat16.
    """

    def __init__(self, scales: Iterable[Any], dtype: torch.dtype) -> None:
        scales = list(scales)
        self.dilations: list[int] = [scale.dilation[0] for scale in scales]
        self.kernels: list[Tensor] = [scale.weight.detach().to(dtype) for scale in scales]
        self.one = merged(self.kernels, self.dilations)
        self.dilates = any(scale.dilation[0] > 1 and set(scale.kernel_size) != {1} for scale in scales)
        pairs = list(zip(self.kernels, self.dilations, strict=True))
        self.steps = [[dilation if size > 1 else 1 for size in kernel.shape[2:]] for kernel, dilation in pairs]
        self.dilated_pairs = [pair for pair in pairs if pair[1] > 1]
        undilated = [kernel for kernel, dilation in pairs if dilation == 1]
        self.undilated: Tensor | None = functools.reduce(torch.add, undilated) if undilated else None
        if self.dilates and self.one.ndim == 5:  # for `planes`
            middle = [kernel[:, :, kernel.shape[2] // 2] for kernel, _ in self.dilated_pairs]
            self.middle_planes = merged(middle, [dilation for _, dilation in self.dilated_pairs])

    def ways(self, shape: Sequence[int]) -> dict[str, Callable[[Tensor], Tensor]]:
        """The ways, by name, to compute it for q of such a spatial shape."""
        if not self.dilates:
            return {"merged": self.merged}
        if len(shape) == 2:
            return {"merged": self.merged, "dilated": self.dilated}
        ways: dict[str, Callable[[Tensor], Tensor]] = {"merged": self.merged, "planes": self.planes}
        return ways if self.margin(shape) is None else {**ways, "folded": self.folded}

    def merged(self, q: Tensor) -> Tensor:
        """All scales as one larger kernel, zero between the taps."""
        return depthwise(activated(q), self.one)

    def dilated(self, q: Tensor) -> Tensor:
        """One dilated convolution after the other. In 2D oneDNN dilates at no cost in float32."""
        q = activated(q)
        total = depthwise(q, self.kernels[0], self.dilations[0])
        for kernel, dilation in zip(self.kernels[1:], self.dilations[1:], strict=True):
            add_depthwise(total, q, kernel, dilation)
        return total

    def planes(self, q: Tensor) -> Tensor:
        """Of 3D: dilated 2D convolutions of all planes at once, each added to the planes that its part of a kernel is for.

        What does not dilate remains a 3D convolution, and the kernels' middle planes are merged: fewer passes.
        """
        results = [self._planes_of(sample) for sample in activated(q).split(1)]
        return channels_last(torch.cat(results)) if len(results) > 1 else results[0]

    def _planes_of(self, sample: Tensor) -> Tensor:
        """`planes` of one sample."""
        planes = sample.movedim(2, 1)[0]
        if self.undilated is None:
            total = depthwise(planes, self.middle_planes)
        else:
            total = depthwise(sample, self.undilated).movedim(2, 1)[0]
            add_depthwise(total, planes, self.middle_planes)
        for kernel, dilation in self.dilated_pairs:
            for number in range(kernel.shape[2]):
                away = (number - kernel.shape[2] // 2) * dilation
                if 0 < abs(away) < len(planes):
                    to, of = (slice(max(0, sign * away), len(planes) + min(0, sign * away)) for sign in (-1, 1))
                    add_depthwise(total[to], planes[of], kernel[:, :, number], dilation)
        return channels_last(total[None].movedim(1, 2))

    def folded(self, q: Tensor) -> Tensor:
        """Convolutions without dilation on views in which voxels that lie a dilation apart are neighbours.

        In memory an axis of n voxels is also one of n / d by d. The d offsets join the axis after it (or the channels),
        where they are other parts of the same rows. The margin's zeros keep a row's ends apart from the next part's.
        """
        margin = self.margin(q.shape[2:])
        if margin is None:
            raise ValueError(f"The dilations {self.dilations} do not divide {tuple(q.shape[2:])}, however padded.")
        padded = activated(q, margin)
        wide = [
            kernel.repeat(step[-1], *[1] * (kernel.ndim - 1))
            for kernel, step in zip(self.kernels, self.steps, strict=True)
        ]
        result = depthwise(folded_view(padded, self.steps[0]), wide[0])
        total = result.movedim(1, -1).view(padded.movedim(1, -1).shape).movedim(-1, 1)
        for kernel, step in zip(wide[1:], self.steps[1:], strict=True):
            add_depthwise(folded_view(total, step), folded_view(padded, step), kernel)
        inside: tuple[Any, ...] = (..., *(slice(m, m + n) for m, n in zip(margin, q.shape[2:], strict=True)))
        return channels_last(total[inside])

    def margin(self, shape: Sequence[int]) -> list[int] | None:
        """Zeros that `folded` needs at both ends of each axis, so that every dilation divides it; None if none do."""
        needed = [0, *(size // 2 for size in self.one.shape[3:])]  # the convolution itself pads the first axis
        units = [math.lcm(*along) for along in zip(*self.steps, strict=True)]
        margins = []
        for n, zeros, unit in zip(shape, needed, units, strict=True):
            fitting = [m for m in range(-(-zeros // 2), zeros + unit) if (n + 2 * m) % unit == 0]
            if not fitting:
                return None
            margins.append(fitting[0])
        return margins


def activated(q: Tensor, margin: Sequence[int] | None = None) -> Tensor:
    """LeakyReLU, in place where it is neither in bfloat16 nor to add a margin of zeros."""
    if margin is None and q.dtype == torch.float32:
        return F.leaky_relu_(q, SLOPE)
    return scaled(q, torch.ones(q.shape[1]), None, "leaky_relu", [SLOPE], margin)


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
        taps: tuple[Any, ...] = (..., *(slice(r - n, r + n + 1, dilation) for r, n in zip(radii, reach, strict=True)))
        total[taps] += kernel
    return total
