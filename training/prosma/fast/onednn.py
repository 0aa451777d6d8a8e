"""Convolutions by oneDNN, channels-last in and out, for the fast network: all calls of operators that PyTorch has for itself.

Tensors are (B, C, S) with two or three spatial axes; padding, margins and strides are numbers for each of these.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """(B, C, S) with the channels last in memory; itself where they are."""
    return x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)


def has_fast_way(x: Tensor) -> bool:
    """Whether a tensor goes through oneDNN: CPU, float32 or bfloat16, no gradients."""
    return not why_no_fast_way(x)


def why_no_fast_way(x: Tensor) -> str:
    """The reason for a tensor not to go through oneDNN, as a clause; empty where it does."""
    if x.device.type != "cpu":
        return f"the image lies on {x.device.type}"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return f"the image is of type {x.dtype}"
    if torch.is_grad_enabled():
        return "gradients are wanted"
    return why_no_onednn()


def why_no_onednn() -> str:
    """The reason for oneDNN not to be of use in this process, as a clause; empty where it is."""
    if not torch.backends.mkldnn.is_available():
        return "this PyTorch was built without oneDNN"
    if not torch.backends.mkldnn.enabled:
        return "oneDNN is switched off (torch.backends.mkldnn.enabled)"
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return f"PyTorch {torch.__version__} has no fused convolutions"
    return ""


def has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this processor, quickly or not."""
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


def convolution_weights(weight: Tensor, dtype: torch.dtype) -> Tensor:
    return channels_last(weight.detach().to(dtype))


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride=None, padding=None, dilation: int = 1, groups: int = 1
) -> Tensor:
    """Convolution by oneDNN, channels-last in and out."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    return channels_last(
        torch.mkldnn_convolution(x, weight, bias, padding or none, stride or one, [dilation] * len(one), groups)
    )


def transposed(x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding=None) -> Tensor:
    """Transposed convolution by oneDNN, weight (in, out, sizes), channels-last in and out."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    return channels_last(
        torch.ops.mkldnn._convolution_transpose_pointwise(
            x, weight, bias, padding or none, none, stride, one, 1, "none", [], ""
        )
    )


def convolve_onto(
    total: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    padding=None,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = False,
) -> None:
    """total += convolution, then ReLU if asked for, in one pass."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    activation: tuple = ("relu" if relu else None, [], None)
    torch.ops.mkldnn._convolution_pointwise_.binary(
        total, x, weight, bias, padding or none, one, [dilation] * len(one), groups, "add", 1.0, *activation
    )


def convolve_times(x: Tensor, weight: Tensor, factor: Tensor) -> Tensor:
    """Convolution of one voxel, times a tensor of the result's shape, in one pass."""
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    return channels_last(
        torch.ops.mkldnn._convolution_pointwise.binary(
            x, factor, weight, None, none, one, one, 1, "mul", 1.0, None, [], None
        )
    )


def depthwise(q: Tensor, kernel: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise convolution that keeps the shape; kernel (C, 1, odd sizes)."""
    return convolve(q, kernel, padding=reach(kernel, dilation), dilation=dilation, groups=len(kernel))


def add_depthwise(total: Tensor, q: Tensor, kernel: Tensor, dilation: int = 1) -> None:
    """total += `depthwise`, in one pass."""
    padding = reach(kernel, dilation)
    convolve_onto(total, q, channels_last(kernel), padding=padding, dilation=dilation, groups=len(kernel))


def reach(kernel: Tensor, dilation: int) -> list[int]:
    """Voxels along each axis that a kernel of odd sizes looks at on either side."""
    return [dilation * (size // 2) for size in kernel.shape[2:]]


def scaled(
    x: Tensor, scale: Tensor, shift: Tensor | None, activation: str, numbers: list, margin: Sequence[int] | None = None
) -> Tensor:
    """activation(scale (C,) x + shift (C,)) of a channels-last (B, C, S), as a depthwise convolution of one voxel by oneDNN.

    It computes in single precision, but with a scale of the type of ``x``. Outside, ``margin`` voxels of x = 0 are added at
    both ends of each spatial axis.
    """
    none, one = [0] * (x.ndim - 2), [1] * (x.ndim - 2)
    kernel = channels_last(scale.to(x.dtype).view(-1, 1, *one))
    return channels_last(
        torch.ops.mkldnn._convolution_pointwise(
            x, kernel, shift, margin or none, one, one, len(kernel), activation, numbers, ""
        )
    )


def pooled(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Average of (B, C, S) on a coarser grid, as a depthwise convolution: PyTorch's pooling has no fast way in 3D."""
    window = [fine // coarse for fine, coarse in zip(x.shape[2:], shape, strict=True)]
    kernel = torch.full((x.shape[1], 1, *window), 1.0, dtype=x.dtype)
    kernel /= kernel[0].numel()
    return convolve(x, kernel, stride=window, groups=len(kernel))


def with_neighbours(x: Tensor, size: int) -> Tensor:
    """(B, 1, S) -> channels-last (B, size, S): as channels the voxel and its neighbours along the first axis, 0 beyond.

    A convolution of one channel takes oneDNN 2 to 5 times as long as one of three.
    """
    length, reach = x.shape[2], size // 2
    result = x.new_zeros(len(x), *x.shape[2:], size)
    for number, away in enumerate(range(-reach, reach + 1)):
        to = slice(max(0, -away), length - max(0, away))
        result[:, to, ..., number] = x[:, 0, max(0, away) : length + min(0, away)]
    return result.movedim(-1, 1)
