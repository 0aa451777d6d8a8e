"""The gates of a ProSMA-UNet, and the attention gate, made fast for inference on a CPU (`fast.network`).

They take the decoder feature before its upsampling; where a gate looks at the upsampled one, upsampling and projection are
one transposed convolution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.gate import CompatibilityField, ProximalSkipGate, SpatialGate
from ..network.unet import AttentionSkip
from . import autotune
from .blocks import FastModule, FastUpsampling, in_one_pass, spatial_mean
from .norm import normalise_, normalised_in_half, row_of, rows
from .onednn import (
    channels_last,
    convolution_weights,
    convolve,
    convolve_onto,
    convolve_times,
    has_fast_way,
    pooled,
    transposed,
)
from .stencils import Stencil

TUNED_SIZE = 1 << 18  # values of a field from which on the ways to compute it are measured
FEW_CHANNELS = 16  # up to which a convolution repeats voxels faster than a copy does


class FastProjection(FastModule):
    """A convolution of one voxel; with an ``upsampling`` before it, both as one transposed convolution."""

    def __init__(self, plain: nn.Module, upsampling: FastUpsampling | None = None) -> None:
        super().__init__(plain)
        self.upsampling = upsampling

    def derive(self, dtype: torch.dtype) -> Any:
        weight, bias = self.plain.weight.detach().double(), self.plain.bias.detach().double()
        if self.upsampling is not None:
            matrix, before = weight.flatten(1), self.upsampling.plain
            bias = bias + matrix @ before.bias.detach().double()
            weight = torch.einsum("oc,ic...->io...", matrix, before.weight.detach().double())
        return convolution_weights(weight, dtype), bias.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S / stride), or (B, in, S) without upsampling -> (B, out, S); only for tensors with a fast way."""
        if self.upsampling is None:
            return convolve(x, *self.derived(x.dtype))
        weight, bias = self.derived(x.dtype)
        return transposed(x, weight, bias, self.upsampling.plain.stride)


class FastField(FastModule):
    """`CompatibilityField`. With an ``upsampling`` it takes the decoder feature before it: their product is one kernel."""

    def __init__(self, plain: CompatibilityField, upsampling: FastUpsampling | None = None) -> None:
        super().__init__(plain)
        self.project_decoder = FastProjection(plain.project_decoder, upsampling)
        self.ways: dict[tuple, str] = {}

    def derive(self, dtype: torch.dtype) -> Any:
        return convolution_weights(self.plain.project_skip.weight, dtype), Stencil(self.plain.scales, dtype)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Before its norm; only for tensors with a fast way."""
        skip, stencil = self.derived(x.dtype)
        q = self.project_decoder(coarse)
        convolve_onto(q, x, skip)
        return stencil.ways(q.shape[2:])[self.way(q, stencil)](q)

    def way(self, q: Tensor, stencil: Stencil) -> str:
        """The fastest way to compute the stencil for this shape, measured where it matters."""
        case = (tuple(q.shape), q.dtype)
        if case not in self.ways:
            ways = stencil.ways(q.shape[2:])
            measured = q.numel() >= TUNED_SIZE
            self.ways[case] = self.measured_way(q.clone(), stencil, ways) if measured else next(iter(ways))
        return self.ways[case]

    def measured_way(self, q: Tensor, stencil: Stencil, ways: dict[str, Callable]) -> str:
        """`way`, whose answer is remembered. The ways use up ``q``."""
        sizes, kernel = "x".join(map(str, q.shape)), list(self.plain.scales[0].kernel_size)
        question = f"activated stencil {sizes} {q.dtype} dilations {stencil.dilations} kernel {kernel}"
        return autotune.fastest(question, {name: functools.partial(way, q) for name, way in ways.items()})


class FastGate(FastModule):
    """`ProximalSkipGate`; the result takes the place of the skip feature or of the field in memory."""

    def __init__(self, plain: ProximalSkipGate, upsampling: FastUpsampling) -> None:
        super().__init__(plain)
        self.upsampling: Any = upsampling if plain.field_grid == "skip" else None
        self.field: Any = None if plain.spatial is None else FastField(plain.spatial.field, self.upsampling)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        """Skip (B, C, S), decoder feature before its upsampling -> gated skip (B, C, S)."""
        gate, on_skip = self.plain, self.upsampling is not None
        if not has_fast_way(x):
            return gate(x, self.upsampling(coarse) if on_skip else coarse)
        factor = None if gate.channel is None else self.channel_weights(coarse)
        if gate.spatial is None:
            return x if factor is None else multiply_channels_(x, factor)
        evidence = (x if on_skip else pooled(x, coarse.shape[2:]), coarse)
        field, watched = self.field(*evidence), gate.spatial._forward_hooks
        if on_skip and not watched and not in_one_pass(x):
            return open_(field, gate.spatial, factor, x)
        a = opened_in_half(field, gate.spatial) if in_one_pass(field) else open_(field, gate.spatial)
        for hook in watched.values():
            hook(gate.spatial, evidence, a)
        if on_skip and in_one_pass(x):
            return product_in_half(x, a, factor)
        if factor is not None:
            a = multiply_channels_(a.clone() if watched else a, factor)
        return multiply_repeated_(x, a)

    def channel_weights(self, coarse: Tensor) -> Tensor:
        """c, (B, C), float32."""
        channel = self.plain.channel
        context = spatial_mean(coarse) if self.upsampling is None else self.upsampling.mean(coarse)
        return torch.sigmoid(channel.excite(F.relu(channel.squeeze(context))))


class FastAttention(FastModule):
    """`AttentionSkip`; the result takes the place of the skip feature."""

    def __init__(self, plain: AttentionSkip, upsampling: FastUpsampling) -> None:
        super().__init__(plain)
        self.upsampling = upsampling
        self.project_decoder = FastProjection(plain.project_decoder, upsampling)

    def derive(self, dtype: torch.dtype) -> Any:
        skip, attention = self.plain.project_skip, self.plain.attention
        weights = [convolution_weights(layer.weight, dtype) for layer in (skip, attention)]
        return *weights, attention.bias.detach().to(dtype)

    def forward(self, x: Tensor, coarse: Tensor) -> Tensor:
        if not has_fast_way(x):
            return self.plain(x, self.upsampling(coarse))
        skip, attention, bias = self.derived(x.dtype)
        hidden = self.project_decoder(coarse)
        convolve_onto(hidden, x, skip, relu=True)
        return x.mul_(convolve(hidden, attention, bias).sigmoid_())


def open_(field: Tensor, gate: SpatialGate, factor: Tensor | None = None, x: Tensor | None = None) -> Tensor:
    """The unnormalised field, in place, into the gate a, times ``factor`` (B, C) and ``x`` (B, C, S) where given."""
    weight, bias, scale = gate_parameters(gate)
    factor = scale if factor is None else factor if scale is None else factor * scale
    factor = None if factor is None else row_of(factor.expand(len(field), -1), field)
    for a, samples, planes in normalise_(field, weight, bias, gate.field.norm.eps):
        activate_(a, gate.kind)
        if factor is not None:
            a.mul_(factor[samples])
        if x is not None:
            a.mul_(rows(x[samples, :, planes]))
    return field


def opened_in_half(field: Tensor, gate: SpatialGate) -> Tensor:
    """The gate a of an unnormalised field in bfloat16."""
    weight, bias, scale = gate_parameters(gate)
    known = {"box": ("hardtanh", [0.0, 1.0]), "sigmoid": ("sigmoid", [])}
    a = normalised_in_half(field, weight, bias, gate.field.norm.eps, *known.get(gate.kind, ("none", [])))
    if gate.kind not in known:
        activate_(rows(a), gate.kind)
    return a if scale is None else multiply_channels_(a, scale.expand(len(a), -1))


def gate_parameters(gate: SpatialGate) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weight and bias of the field's norm such that `activate_`, times the third (1, C) if there is one, is the gate."""
    if gate.kind == "sigmoid":
        return 4 * gate.gain, gate.offset, None
    threshold = gate.threshold
    if gate.kind == "box":
        return gate.gain, 1 - threshold, None
    threshold = threshold.clamp_min(1e-12)
    return gate.gain / threshold, torch.zeros_like(threshold), threshold[None] if gate.kind == "soft" else None


def activate_(u: Tensor, kind: str) -> Tensor:
    """The gate of normalised evidence, with threshold 1 for the kinds that are divided by theirs, in place."""
    if kind == "box":
        return u.clamp_(0, 1)
    if kind == "sigmoid":
        return u.sigmoid_()
    if kind == "soft":
        return u.sub_(u.clamp(-1, 1))
    return u.abs_().reciprocal_().neg_().add_(1).clamp_min_(0)


def multiply_channels_(x: Tensor, factor: Tensor) -> Tensor:
    """x *= factor (B, C)."""
    rows(x).mul_(row_of(factor, x))
    return x


def multiply_repeated_(x: Tensor, a: Tensor) -> Tensor:
    """x *= a, which is repeated by nearest neighbour where its grid is coarser. Channels-last both."""
    x = channels_last(x)
    steps = [fine // coarse for fine, coarse in zip(x.shape[2:], a.shape[2:], strict=True)]
    lines = repeated_along_last(a, steps[-1])
    width = x.shape[-1] * x.shape[1]
    fine = [part for pair in zip(a.shape[2:-1], steps[:-1], strict=True) for part in pair]
    coarse = [part for size in a.shape[2:-1] for part in (size, 1)]
    x.movedim(1, -1).view(len(x), *fine, width).mul_(lines.reshape(len(a), *coarse, width))
    return x


def repeated_along_last(a: Tensor, times: int) -> Tensor:
    """Channels-last (B, C, S), each voxel so many times along the last axis: (B, S, C), the last axis longer.

    Copied voxel by voxel, a few channels take long. There a convolution by ones writes the copies as further channels.
    """
    lines = a.movedim(1, -1)
    if times == 1 or a.shape[1] > FEW_CHANNELS:
        return lines.repeat_interleave(times, dim=-2)
    ones = as_kernel(torch.eye(a.shape[1], dtype=a.dtype).repeat(times, 1), a.ndim - 2)
    copies = convolve(a, channels_last(ones)).movedim(1, -1)
    return copies.reshape(*lines.shape[:-2], times * lines.shape[-2], lines.shape[-1])


def as_kernel(matrix: Tensor, axes: int) -> Tensor:
    """(out, in) as the kernel of a convolution of one voxel, with so many spatial axes."""
    return matrix.reshape(*matrix.shape, *[1] * axes)


def product_in_half(x: Tensor, a: Tensor, factor: Tensor | None) -> Tensor:
    """x times a times factor (B, C), in bfloat16: oneDNN multiplies what a convolution gives by something else in passing."""
    results = []
    for number, (sample, gate) in enumerate(zip(x.split(1), a.split(1), strict=True)):
        matrix = torch.eye(x.shape[1]) if factor is None else torch.diag(factor[number])
        kernel = convolution_weights(as_kernel(matrix, x.ndim - 2), x.dtype)
        results.append(convolve_times(gate, kernel, sample))
    return results[0] if len(results) == 1 else channels_last(torch.cat(results))
