"""`use_fast_training`: a ProSMA-UNet that trains faster on a CPU, with the same weights under the same names.

Classes take the place of the plain ones'; each goes through the plain one's way where there is no fast one: without
gradients, on another device, in another type than float32, under autocast.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.gate import CompatibilityField, ProximalSkipGate, SpatialGate
from ..network.unet import ConvolutionBlock, ProSMAUNet, pad_to_multiple
from .onednn import why_no_onednn
from .training_convolutions import (
    ConvolutionFunction,
    DepthwiseSumFunction,
    FoldedDecoderFunction,
    PointwiseFunction,
    TwoConvolutionsFunction,
    folded_edge,
    folded_kernel,
)
from .training_gates import ForkFunction, RepeatedProductFunction
from .training_norm import NormFunction

MANY = 1 << 12  # coarse voxels of a batch from which on folding the kernels costs less than it saves


def use_fast_training(network: nn.Module) -> None:
    """Give every part of ``network`` that has one its faster way of training; names and weights stay as they are."""
    for module in network.modules():
        if type(module) in FASTER:
            module.__class__ = FASTER[type(module)]


def trains_fast(x: Tensor) -> bool:
    """Whether a tensor goes the fast way, forward and backward."""
    return (
        torch.is_grad_enabled()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and not why_no_onednn()
    )


class TrainedBlock(ConvolutionBlock):
    """`ConvolutionBlock`: no bias before a norm, norm and LeakyReLU at once."""

    def forward(self, x: Tensor) -> Tensor:
        if not trains_fast(x):
            return super().forward(x)
        first: Any = self[0]
        return self.rest(ConvolutionFunction.apply(x, first.weight, first.bias, first.stride, first.padding))

    def rest(self, x: Tensor) -> Tensor:
        """What follows the first convolution."""
        second: Any = self[3]
        x = normalised(x, self[1], self[2])
        x = ConvolutionFunction.apply(x, second.weight, second.bias, second.stride, second.padding)
        return normalised(x, self[4], self[5])

    def decoded(self, coarse: Tensor, upsampling: Any, skip: Tensor) -> Tensor:
        """Of the decoder: the decoder feature before its upsampling, and the skip."""
        first: Any = self[0]
        padding = first.padding
        wide = all(size >= kernel for size, kernel in zip(skip.shape[2:], first.kernel_size, strict=True))
        if wide and coarse.numel() // coarse.shape[1] >= MANY:
            up, weight = first.weight.chunk(2, dim=1)
            kernel = folded_kernel(upsampling.weight, up)
            edge = folded_edge(upsampling.bias, up, padding)
            arguments = coarse, kernel, edge, skip, weight, first.bias, upsampling.stride, padding
            return self.rest(FoldedDecoderFunction.apply(*arguments))
        return self.joined(upsampling(coarse), skip)

    def joined(self, upsampled: Tensor, skip: Tensor) -> Tensor:
        """Of the decoder: the upsampled decoder feature, and the skip."""
        first: Any = self[0]
        up, weight = first.weight.chunk(2, dim=1)
        return self.rest(TwoConvolutionsFunction.apply(upsampled, up, skip, weight, first.bias, first.padding))


class TrainedField(CompatibilityField):
    """`CompatibilityField`: all dilations as one stencil."""

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        if not trains_fast(x):
            return super().forward(x, g)
        field = self.before_norm(x, g)
        ones = field.new_ones(field.shape[1])
        return NormFunction.apply(field, ones, torch.zeros_like(ones), self.norm.eps, "none")

    def before_norm(self, x: Tensor, g: Tensor) -> Tensor:
        q = F.leaky_relu(pointwise(self.project_skip, x) + pointwise(self.project_decoder, g), 0.01)
        scales: list[Any] = list(self.scales)
        dilations = [scale.dilation[0] for scale in scales]
        return DepthwiseSumFunction.apply(q, dilations, *(scale.weight for scale in scales))


class TrainedSpatialGate(SpatialGate):
    """`SpatialGate`: of the default kind, clip(1 + gamma z - lambda, 0, 1) is the field's norm and an activation."""

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        if self.kind != "box" or not trains_fast(x):
            return super().forward(x, g)
        field: Any = self.field
        return NormFunction.apply(field.before_norm(x, g), self.gain, 1 - self.threshold, field.norm.eps, "box")


class TrainedGate(ProximalSkipGate):
    """`ProximalSkipGate` on the decoder's grid: both gates are multiplied there, and the skip once."""

    def gated(self, x: Tensor, small: Tensor, coarse: Tensor) -> Tensor:
        """Skip (B, C, S), the same on the decoder's grid, decoder feature on that -> gated skip."""
        assert self.spatial is not None
        a = self.spatial(small, coarse)
        return RepeatedProductFunction.apply(x, a if self.channel is None else a * self.channel(coarse))


class TrainedUNet(ProSMAUNet):
    """`ProSMAUNet`: neither a concatenation nor, where it is large, the upsampled feature."""

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        if not trains_fast(x) or x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            return super().forward(x)
        shape = x.shape[2:]
        x = pad_to_multiple(x, self.divisor)
        skips: list[tuple[Tensor, Tensor | None]] = []
        strides = [layer.stride for layer in reversed(list[Any](self.upsamplings))]
        for stage, (block, stride) in enumerate(itertools.zip_longest(self.encoder, strides)):
            x = block(x)
            if stride is not None:
                x, skip, small = self.forked(x, stage, stride)
                skips.append((skip, small))
        x = self.bottleneck(x)
        auxiliary = []
        for level in range(len(self.decoder)):
            x = self.decoded(level, x, *skips.pop())
            if self.training and self.deep_supervision and level < len(self.auxiliary_heads):
                auxiliary.append(pointwise(self.auxiliary_heads[level], x))
        inside: tuple[Any, ...] = (..., *(slice(size) for size in shape))
        logits = pointwise(self.head, x)[inside]
        return [logits, *reversed(auxiliary)] if auxiliary else logits

    def forked(self, x: Tensor, stage: int, stride: Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """A feature for the encoder, for its skip, and on the decoder's grid if its gate works there."""
        gate: Any = self.gates[-1 - stage] if len(self.gates) else None
        if not self.coarse_gating or gate.spatial is None:
            return x, x, None
        return ForkFunction.apply(x, [size // step for size, step in zip(x.shape[2:], stride, strict=True)])

    def decoded(self, level: int, coarse: Tensor, skip: Tensor, small: Tensor | None) -> Tensor:
        """A stage of the decoder."""
        block: Any = self.decoder[level]
        gate: Any = self.gates[level] if len(self.gates) else None
        if gate is not None and not self.coarse_gating:
            upsampled = self.upsamplings[level](coarse)
            return block.joined(upsampled, gate(skip, upsampled))
        if small is not None:
            skip = gate.gated(skip, small, coarse)
        elif gate is not None:
            skip = gate(skip, coarse)
        return block.decoded(coarse, self.upsamplings[level], skip)


def pointwise(layer: Any, x: Tensor) -> Tensor:
    return PointwiseFunction.apply(x, layer.weight, layer.bias)


def normalised(x: Tensor, norm: Any, activation: Any) -> Tensor:
    return NormFunction.apply(x, norm.weight, norm.bias, norm.eps, activation.negative_slope)


FASTER: dict[type, type] = {
    ConvolutionBlock: TrainedBlock,
    CompatibilityField: TrainedField,
    SpatialGate: TrainedSpatialGate,
    ProximalSkipGate: TrainedGate,
    ProSMAUNet: TrainedUNet,
}
