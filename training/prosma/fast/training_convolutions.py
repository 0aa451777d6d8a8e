"""Convolutions for training on a CPU: oneDNN forward and backward, and fewer multiplications where two can be one.

All are autograd functions on (B, C, S), channels last in and out. In float64, which oneDNN does not know, PyTorch's own
convolutions serve: that is for checking the gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .blocks import CONVOLVE, CONVOLVE_TRANSPOSED, add_at_borders
from .onednn import channels_last, convolve, convolve_onto, depthwise, transposed
from .stencils import merged


class ConvolutionFunction(torch.autograd.Function):
    """Convolution without its bias, because a norm follows that takes it away: its gradient is 0."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
        x = channels_last(x)
        ctx.save_for_backward(x, weight, bias)
        ctx.geometry = stride, padding
        return convolution(x, weight, stride, padding)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Any, ...]:
        x, weight, bias = ctx.saved_tensors
        stride, padding = ctx.geometry
        dx, dw = convolution_gradients(gradient, x, weight, stride, padding, ctx.needs_input_grad)
        return dx, dw, torch.zeros_like(bias), None, None


class TwoConvolutionsFunction(torch.autograd.Function):
    """The sum of two convolutions that keep the size, without bias: that of a concatenation, which is never made."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, y: Tensor, weight_of_y: Tensor, bias: Tensor, padding) -> Tensor:
        x, y = channels_last(x), channels_last(y)
        ctx.save_for_backward(x, weight, y, weight_of_y, bias)
        ctx.padding = padding
        total = convolution(x, weight, [1] * len(padding), padding)
        add_convolution(total, y, weight_of_y, padding)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Any, ...]:
        x, weight, y, weight_of_y, bias = ctx.saved_tensors
        gradient, stride = channels_last(gradient), [1] * len(ctx.padding)
        first = convolution_gradients(gradient, x, weight, stride, ctx.padding)
        second = convolution_gradients(gradient, y, weight_of_y, stride, ctx.padding)
        return *first, *second, torch.zeros_like(bias), None


class FoldedDecoderFunction(torch.autograd.Function):
    """The same with the upsampling of the first one inside it.

    Args (of `apply`):
        coarse: the decoder feature before its upsampling (B, in, S / stride).
        kernel: upsampling and convolution as one transposed convolution, of `folded_kernel`.
        edge: of `folded_edge`, what the upsampling's bias adds at the borders.
        skip, weight: feature (B, C, S) and the weights for it.
        bias: of the convolution, with gradient 0.
    """

    @staticmethod
    def forward(ctx, coarse, kernel, edge, skip, weight, bias, stride, padding) -> Tensor:
        coarse, skip = channels_last(coarse), channels_last(skip)
        ctx.save_for_backward(coarse, kernel, edge, skip, weight, bias)
        ctx.geometry = stride, padding
        if coarse.dtype == torch.float32:
            total = transposed(coarse, kernel, None, stride, padding)
        else:
            total = channels_last(CONVOLVE_TRANSPOSED[len(padding)](coarse, kernel, None, stride, padding))
        add_at_borders(total, edge)
        add_convolution(total, skip, weight, padding)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Any, ...]:
        coarse, kernel, edge, skip, weight, bias = ctx.saved_tensors
        stride, padding = ctx.geometry
        gradient = channels_last(gradient)
        # The transposed convolution's backward pass is a convolution of what comes back, and that one's weight gradient.
        d_coarse = convolution(gradient, kernel, stride, padding)
        _, d_kernel = convolution_gradients(coarse, gradient, kernel, stride, padding, wanted=(False, True))
        d_skip, d_weight = convolution_gradients(gradient, skip, weight, [1] * len(padding), padding)
        d_edge = sums_at_borders(gradient, edge.shape)
        return d_coarse, d_kernel, d_edge, d_skip, d_weight, torch.zeros_like(bias), None, None


def folded_kernel(upsampling: Tensor, weight: Tensor) -> Tensor:
    """Kernel (in, out, sizes) that upsamples, (in, mid, steps), and convolves, (out, mid, sizes), in one."""
    axes = weight.ndim - 2
    mirrored = weight.flip(*range(2, 2 + axes)).transpose(0, 1)
    return CONVOLVE_TRANSPOSED[axes](upsampling, mirrored)


def folded_edge(bias: Tensor, weight: Tensor, padding: Sequence[int]) -> Tensor:
    """What the upsampling's bias becomes near each border, less than in the middle: (1, out, odd sizes)."""
    axes = weight.ndim - 2
    edge = CONVOLVE[axes](bias.view(1, -1, *[1] * axes).expand(-1, -1, *weight.shape[2:]), weight, padding=padding)
    return edge - edge[(..., *(slice(p, p + 1) for p in padding))]


def sums_at_borders(x: Tensor, shape: Sequence[int]) -> Tensor:
    """(1, C, odd sizes): sums of (B, C, S) over the voxels that `add_at_borders` adds each of them to, 0 in the middle."""
    result = x.new_zeros(tuple(shape))
    parts = [(result.movedim(1, -1), x.movedim(1, -1), 1, False)]
    while parts:
        into, of, axis, at_border = parts.pop()
        if axis == of.ndim - 1:
            into += of.sum(tuple(range(axis)), keepdim=True)
            continue
        reach, length = into.shape[axis] // 2, of.shape[axis]
        for n, place in [*((n, n) for n in range(reach)), *((-1 - n, length - 1 - n) for n in range(reach))]:
            parts.append((into.narrow(axis, n, 1), of.narrow(axis, place, 1), axis + 1, True))
        if at_border or any(size > 1 for size in into.shape[axis + 1 : -1]):  # else it is the middle of the middle
            parts.append((into.narrow(axis, reach, 1), of.narrow(axis, reach, length - 2 * reach), axis + 1, at_border))
    return result


class PointwiseFunction(torch.autograd.Function):
    """Convolution of one voxel, weight (out, in, 1, ...); PyTorch's takes several times as long in 3D."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x = channels_last(x)
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        if x.dtype == torch.float32:
            return convolve(x, weight, bias)
        return channels_last(CONVOLVE[x.ndim - 2](x, weight, bias))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight = ctx.saved_tensors
        voxels, slopes = x.movedim(1, -1).flatten(1, -2), gradient.flatten(2)  # (B, voxels, in), (B, out, voxels)
        matrix = weight.flatten(1)
        dx = torch.bmm(slopes.transpose(1, 2), matrix.expand(len(x), -1, -1))
        dx = dx.unflatten(1, x.shape[2:]).movedim(-1, 1)
        dw = torch.bmm(slopes, voxels).sum(0).view_as(weight)
        return dx, dw, slopes.sum((0, 2)) if ctx.has_bias else None


class DepthwiseSumFunction(torch.autograd.Function):
    """Sum of depthwise convolutions of several dilations that keep the size, without bias; kernels (C, 1, odd sizes)."""

    @staticmethod
    def forward(ctx, q: Tensor, dilations: Sequence[int], *kernels: Tensor) -> Tensor:
        q = channels_last(q)
        ctx.save_for_backward(q, *kernels)
        ctx.dilations = dilations
        return depthwise_any(q, merged(kernels, dilations))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Any, ...]:
        q, *kernels = ctx.saved_tensors
        gradient = channels_last(gradient)
        axes = range(2, q.ndim)
        dq = depthwise_any(gradient, merged(kernels, ctx.dilations).flip(*axes))
        slopes = [
            depthwise_kernel_gradient(gradient, q, kernel, dilation)
            for kernel, dilation in zip(kernels, ctx.dilations, strict=True)
        ]
        return dq, None, *slopes


def depthwise_kernel_gradient(gradient: Tensor, q: Tensor, kernel: Tensor, dilation: int) -> Tensor:
    """The gradient of a dilated depthwise convolution's kernel, plane by plane and without dilation.

    Along the last two axes voxels that lie a dilation apart become neighbours in pictures of their own, of which there are
    then dilation^2 times as many.
    """
    flat = q.ndim == 4
    if flat:
        gradient, q, kernel = gradient.unsqueeze(2), q.unsqueeze(2), kernel.unsqueeze(2)
    slopes, values = pictures(gradient, dilation), pictures(q, dilation)
    depth, planes = kernel.shape[2], len(slopes)
    rows = []
    for number in range(depth):
        away = (number - depth // 2) * dilation
        to, of = (slice(max(0, sign * away), planes + min(0, sign * away)) for sign in (-1, 1))
        if abs(away) < planes:
            row = kernel[:, :, number]
            padding = [size // 2 for size in row.shape[2:]]
            pair = slopes[to].flatten(0, 1), values[of].flatten(0, 1)
            rows.append(weight_gradient(*pair, row, [1, 1], padding, groups=len(row)))
        else:
            rows.append(torch.zeros_like(kernel[:, :, number]))
    result = torch.stack(rows, 2)
    return result.squeeze(2) if flat else result


def pictures(x: Tensor, step: int) -> Tensor:
    """(B, C, X, Y, Z) -> (X, B step^2, C, Y / step, Z / step), padded by zeros, the channels last in memory."""
    planes = channels_last(x).movedim(2, 0).movedim(2, -1)  # (X, B, Y, Z, C)
    if step > 1:
        missing = [-size % step for size in planes.shape[2:4]]
        if any(missing):
            planes = F.pad(planes, [0, 0, 0, missing[1], 0, missing[0]])
        first, batch, *sides, channels = planes.shape
        parts = planes.reshape(first, batch, sides[0] // step, step, sides[1] // step, step, channels)
        planes = parts.permute(0, 1, 3, 5, 2, 4, 6).flatten(1, 3)
    return planes.contiguous().movedim(-1, 2)


def convolution(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    if x.dtype == torch.float32:
        return convolve(x, weight, None, stride, padding)
    return channels_last(CONVOLVE[x.ndim - 2](x, weight, None, stride, padding))


def add_convolution(total: Tensor, x: Tensor, weight: Tensor, padding: Sequence[int]) -> None:
    if x.dtype == torch.float32:
        convolve_onto(total, x, weight, None, padding)
    else:
        total += CONVOLVE[x.ndim - 2](x, weight, None, 1, padding)


def depthwise_any(q: Tensor, kernel: Tensor) -> Tensor:
    if q.dtype == torch.float32:
        return depthwise(q, kernel)
    padding = [size // 2 for size in kernel.shape[2:]]
    return channels_last(CONVOLVE[q.ndim - 2](q, kernel, None, 1, padding, 1, len(kernel)))


def convolution_gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, stride, padding, wanted: Sequence[bool] = (True, True), groups: int = 1
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution's input and weight, each if wanted."""
    none, one = [0] * len(padding), [1] * len(padding)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        channels_last(gradient), x, weight, None, stride, padding, one, False, none, groups, [*wanted[:2], False]
    )
    return dx, dw


def weight_gradient(gradient: Tensor, x: Tensor, weight: Tensor, stride, padding, groups: int) -> Tensor:
    _, dw = convolution_gradients(gradient, x, weight, stride, padding, (False, True), groups)
    assert dw is not None
    return dw
