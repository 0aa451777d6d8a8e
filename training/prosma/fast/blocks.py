"""The convolution blocks of a ProSMA-UNet made fast for inference on a CPU (`fast.network`).

Each holds the plain module that it stands for, and calls it where there is no fast way.
"""

from __future__ import annotations

import abc
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..network.gate import along_channels
from ..network.unet import ConvolutionBlock
from .norm import FEW, Watch, is_small, normalise_, normalised_in_half
from .onednn import (
    channels_last,
    convolution_weights,
    convolve,
    convolve_onto,
    has_fast_way,
    pooled,
    transposed,
    with_neighbours,
)

CONVOLVE: dict[int, Any] = {2: F.conv2d, 3: F.conv3d}
CONVOLVE_TRANSPOSED: dict[int, Any] = {2: F.conv_transpose2d, 3: F.conv_transpose3d}


class FastModule(nn.Module):
    """A plain module with weights that `derive` makes of its own, at first use and again after it has moved."""

    def __init__(self, plain: nn.Module) -> None:
        super().__init__()
        self.plain: Any = plain  # a module of a kind that each subclass knows
        self._derived: dict[torch.dtype, Any] = {}

    @abc.abstractmethod
    def derive(self, dtype: torch.dtype) -> Any:
        """The weights as the fast way wants them."""

    def derived(self, dtype: torch.dtype) -> Any:
        """What `derive` made, once for each type."""
        if dtype not in self._derived:
            self._derived[dtype] = self.derive(dtype)
        return self._derived[dtype]

    def _apply(self, *arguments, **options):
        self._derived.clear()
        return super()._apply(*arguments, **options)


class FastBlock(FastModule):
    """`ConvolutionBlock` of the encoder."""

    def __init__(self, plain: ConvolutionBlock) -> None:
        super().__init__(plain)
        first, *_ = layers(plain)
        keeps_length = first.stride[0] == 1 and 2 * first.padding[0] + 1 == first.kernel_size[0]
        self.stacked = first.in_channels == 1 and keeps_length

    def derive(self, dtype: torch.dtype) -> Any:
        weight = self.plain[0].weight.transpose(1, 2) if self.stacked else self.plain[0].weight
        return convolution_weights(weight, dtype), convolution_weights(self.plain[3].weight, dtype)

    def forward(self, x: Tensor, watch: Watch | None = None) -> Tensor:
        """(B, in, S) -> (B, out, S / stride). ``watch`` sees the moments of what each convolution gives, without its bias."""
        if not has_fast_way(x):
            return self.plain(x) if watch is None else watched(self.plain, x, watch)
        weight, second_weight = self.derived(x.dtype)
        x, first = channels_last(x), self.plain[0]
        if self.stacked:
            x = convolve(with_neighbours(x, first.kernel_size[0]), weight, None, None, (0, *first.padding[1:]))
        else:
            x = convolve(x, weight, None, first.stride, first.padding)
        return rest_of_block(x, self.plain, second_weight, watch)


class FastUpsampling(FastModule):
    """Transposed convolution whose stride is its kernel."""

    def derive(self, dtype: torch.dtype) -> Any:
        return convolution_weights(self.plain.weight, dtype), self.plain.bias.detach().to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        if not has_fast_way(x):
            return self.plain(x)
        weight, bias = self.derived(x.dtype)
        return transposed(x, weight, bias, self.plain.stride)

    def mean(self, x: Tensor) -> Tensor:
        """The mean of the result over its voxels, (B, C), from that of ``x``: the kernels tile the result."""
        kernel = self.plain.weight.float().flatten(2).mean(2)
        return spatial_mean(x) @ kernel + self.plain.bias.float()


class ConvolvedUpsampling(FastModule):
    """The transposed convolution of an upsampling and the convolution after it as one, but for a constant in each channel.

    Its kernel is larger, but it takes fewer multiplications than the two, 8 x 2C x C for a voxel instead of 27 x C x C and
    those of the upsampling, and the upsampled feature is never made. The constant, of the bias, goes in the norm that
    follows; near the borders, where zeros take the bias's place, the difference remains.
    """

    def __init__(self, upsampling: nn.Module, convolution: nn.Module) -> None:
        super().__init__(upsampling)
        self.convolution: Any = convolution

    def derive(self, dtype: torch.dtype) -> Any:
        """The kernel (in, out, sizes), and the difference, (1, out, odd sizes), as `add_at_borders` takes it."""
        axes, padding = self.convolution.weight.ndim - 2, self.convolution.padding
        weight = self.convolution.weight.detach().chunk(2, dim=1)[0].double()  # those for the upsampled feature
        mirrored = weight.flip(*range(2, 2 + axes)).transpose(0, 1)
        kernel = CONVOLVE_TRANSPOSED[axes](self.plain.weight.detach().double(), mirrored)
        bias = self.plain.bias.detach().double().view(1, -1, *[1] * axes).expand(-1, -1, *weight.shape[2:])
        edge = CONVOLVE[axes](bias, weight, padding=padding)
        middle = (..., *(slice(p, p + 1) for p in padding))
        return convolution_weights(kernel, dtype), (edge - edge[middle]).to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, S / stride) -> (B, out, S); only for tensors with a fast way."""
        kernel, edge = self.derived(x.dtype)
        y = transposed(x, kernel, None, self.plain.stride, self.convolution.padding)
        add_at_borders(y, edge)
        return y


class FastDecoderBlock(FastModule):
    """Upsampling, concatenation with the skip and `ConvolutionBlock`."""

    def __init__(self, plain: ConvolutionBlock, upsampling: nn.Module) -> None:
        super().__init__(plain)
        self.upsampling: FastUpsampling = FastUpsampling(upsampling)
        self.convolved_upsampling = ConvolvedUpsampling(upsampling, plain[0])

    def derive(self, dtype: torch.dtype) -> Any:
        up, skip = self.plain[0].weight.chunk(2, dim=1)
        return [convolution_weights(weight, dtype) for weight in (up, skip, self.plain[3].weight)]

    def forward(self, inputs: list[Tensor]) -> Tensor:
        """[decoder feature (B, 2 C, S / stride), skip (B, C, S)] -> (B, C, S). The list is emptied, to free them early."""
        if not has_fast_way(inputs[0]):
            coarse, skip = inputs
            inputs.clear()
            return self.plain(torch.cat([self.upsampling(coarse), skip], dim=1))
        up, skip, second = self.derived(inputs[0].dtype)
        padding = self.plain[0].padding
        if self.takes_one_kernel(inputs[0], inputs[1]):
            x = self.convolved_upsampling(inputs.pop(0))
            convolve_onto(x, inputs.pop(), skip, None, padding)
        else:
            x = convolve(inputs.pop(), skip, None, None, padding)
            convolve_onto(x, self.upsampling(inputs.pop()), up, None, padding)
        return rest_of_block(x, self.plain, second)

    def takes_one_kernel(self, coarse: Tensor, skip: Tensor) -> bool:
        """Whether one kernel is quicker than two (with few voxels AVX-512 takes longer), and no border meets the other."""
        wide = all(size >= kernel for size, kernel in zip(skip.shape[2:], self.plain[0].kernel_size, strict=True))
        return wide and coarse.numel() // coarse.shape[1] >= FEW


def layers(block: ConvolutionBlock) -> list[Any]:
    """Convolution, norm, activation, and these again."""
    return list(block)


def watched(block: ConvolutionBlock, x: Tensor, watch: Watch) -> Tensor:
    """What a plain block gives for one sample; ``watch`` as of `FastBlock`."""
    for layer in block:
        x = layer(x)
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            unbiased = x if layer.bias is None else x - along_channels(layer.bias, x.ndim - 2)
            variance, mean = torch.var_mean(unbiased[0].double().flatten(1), dim=1, correction=0)
            watch(mean, variance)
    return x


def rest_of_block(x: Tensor, block: ConvolutionBlock, weight: Tensor, watch: Watch | None = None) -> Tensor:
    """What a block does after its first convolution, which has had no bias; ``weight`` is the second's."""
    _, norm, activation, second, second_norm, second_activation = layers(block)
    x = norm_and_activation(x, norm, activation.negative_slope, watch)
    x = convolve(x, weight, None, second.stride, second.padding)
    return norm_and_activation(x, second_norm, second_activation.negative_slope, watch)


def norm_and_activation(x: Tensor, norm: nn.GroupNorm, slope: float, watch: Watch | None = None) -> Tensor:
    """Instance norm and LeakyReLU, in place in float32."""
    if in_one_pass(x):
        return normalised_in_half(x, norm.weight, norm.bias, norm.eps, "leaky_relu", [slope], watch)
    for lines, _, _ in normalise_(x, norm.weight, norm.bias, norm.eps, watch):
        F.leaky_relu_(lines, slope)
    return x


def in_one_pass(x: Tensor) -> bool:
    """Whether `normalised_in_half` is there for a tensor, and quicker."""
    return x.dtype == torch.bfloat16 and not is_small(x)


def spatial_mean(x: Tensor) -> Tensor:
    """(B, C, S) -> (B, C), float32. In bfloat16 PyTorch sums slowly: it gets the means of neighbours."""
    if in_one_pass(x) and has_fast_way(x) and not any(size % 2 for size in x.shape[2:]):
        x = pooled(x, [size // 2 for size in x.shape[2:]])
    return x.mean(dim=tuple(range(2, x.ndim)), dtype=torch.float32)


def add_at_borders(x: Tensor, edge: Tensor) -> None:
    """x += edge, (1, C, odd sizes), whose middle voxel, 0, stands for all but the first and last few of an axis.

    Axis by axis: the ends of each get what differs from its middle, as whole faces, which are contiguous for the first.
    """
    x, edge = x.movedim(1, -1), edge.movedim(1, -1)
    for axis in range(1, x.ndim - 1):
        reach = edge.shape[axis] // 2
        middle = edge.narrow(axis, reach, 1)
        faces = edge - middle
        for later in range(axis + 1, x.ndim - 1):
            faces = stretched(faces, later, x.shape[later])
        for start in (0, x.shape[axis] - reach):
            x.narrow(axis, start, reach).add_(faces.narrow(axis, reach + 1 if start else 0, reach))
        edge = middle


def stretched(x: Tensor, axis: int, length: int) -> Tensor:
    """``x`` with the middle of an axis of odd size repeated up to ``length``."""
    reach = x.shape[axis] // 2
    repeats = torch.ones(2 * reach + 1, dtype=torch.int64)
    repeats[reach] = length - 2 * reach
    return x.repeat_interleave(repeats, dim=axis)
