"""Instance norm for channels-last tensors on a CPU: a piece at a time, small enough for a core's cache.

PyTorch's own sums over a whole channels-last tensor add one value after the other in single precision: at 96^3 the
variance was off by 8e-4. Here sums are short, and added in double precision, which leaves 2e-7. What follows the norm
(activation, gate) is applied, in place, to a piece while it is in the cache. In bfloat16 PyTorch spends more on the
numbers' conversion than on memory; there oneDNN scales, shifts and applies the activation in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from .onednn import channels_last, scaled

Watch = Callable[[Tensor, Tensor], None]  # sees mean and variance of each channel, float64 (C,)

PIECE_BYTES = 1 << 20  # for each thread: what a core's level-2 cache holds
LONGEST_SUM = 1 << 12  # values added in single precision; in cache-sized pieces moments took half as long again
FEW = 1 << 10  # voxels below which PyTorch's group norm runs through memory channel by channel, 5 to 30 times slower
SMALL = 1 << 14  # voxels up to which PyTorch's sums are accurate (1e-5) and one call for a batch is quicker


def pieces(sample: Tensor) -> Iterator[Tensor]:
    """Views of a channels-last (1, C, S), cut along its first spatial axis, one after the other in memory."""
    plane = sample.numel() * sample.element_size() / max(1, sample.shape[2])
    return iter(sample.split(max(1, int(PIECE_BYTES * torch.get_num_threads() / max(1.0, plane))), dim=2))


def rows(x: Tensor) -> Tensor:
    """A channels-last (B, C, S) as a view (B, lines, voxels of the last axis x C): rows long enough for vector units."""
    return x.movedim(1, -1).view(len(x), -1, x.shape[-1] * x.shape[1])


def row_of(values: Tensor, x: Tensor) -> Tensor:
    """(C,) or (B, C) -> what `rows` of ``x`` are multiplied with, channel by channel."""
    return values.to(x.dtype).view(-1, 1, x.shape[1]).repeat(1, 1, x.shape[-1])


def moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel of a channels-last (1, C, S), float64 (C,).

    The places along the last axis count as further channels at first: rows as long as vector units like them, short sums.
    """
    counts, means, variances = [], [], []
    length = sample.shape[1] * sample.shape[-1]
    # Running moments, here of no use, make those of bfloat16 single precision.
    dtype = torch.promote_types(sample.dtype, torch.float32)
    running = torch.zeros(length, dtype=dtype), torch.ones(length, dtype=dtype)
    for lines in rows(sample)[0].split(LONGEST_SUM):
        mean, variance = torch.batch_norm_update_stats(lines, *running, 0.0)
        counts.append(len(lines))
        means.append(mean.double().view(-1, sample.shape[1]))
        variances.append(variance.double().view(-1, sample.shape[1]))
    share = torch.tensor(counts, dtype=torch.float64)[:, None, None] / (sum(counts) * sample.shape[-1])
    each = torch.stack(means)
    mean = (share * each).sum((0, 1))
    return mean, (share * (torch.stack(variances) + (each - mean) ** 2)).sum((0, 1))


def scale_and_shift(
    sample: Tensor, weight: Tensor, bias: Tensor, eps: float, dtype: torch.dtype, watch: Watch | None = None
) -> tuple[Tensor, Tensor]:
    """Float32 (C,) such that their use is the instance norm of a channels-last (1, C, S); a scale that ``dtype`` has."""
    mean, variance = moments(sample)
    if watch is not None:
        watch(mean, variance)
    scale = (weight.double() * torch.rsqrt(variance + eps)).to(dtype)
    return scale.float(), (bias.double() - mean * scale.double()).float()


def normalise_(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, watch: Watch | None = None
) -> Iterator[tuple[Tensor, slice, slice]]:
    """Instance norm of a channels-last (B, C, S), float32, in place, a piece at a time.

    Args:
        weight, bias: (C,), float32.
        eps: added to the variance.
        watch: sees the moments of each sample, which are there anyway where a tensor is not small.

    Yields each piece's rows while it is in the cache, with the samples and the planes (of the first spatial axis) it holds.
    """
    if is_small(x):
        if watch is not None:
            for sample in x.split(1):
                watch(*moments(sample))
        if x[0, 0].numel() < FEW:
            for sample in x.split(1):
                sample.copy_(torch.batch_norm(sample, weight, bias, None, None, True, 0.0, eps, False))
        else:
            x.copy_(F.group_norm(x, x.shape[1], weight, bias, eps))
        yield rows(x), slice(None), slice(None)
        return
    for number, sample in enumerate(x.split(1)):
        scale, shift = (row_of(v, sample) for v in scale_and_shift(sample, weight, bias, eps, x.dtype, watch))
        first = 0
        for piece in pieces(sample):
            lines = rows(piece)
            torch.addcmul(shift, lines, scale, out=lines)
            yield lines, slice(number, number + 1), slice(first, first + piece.shape[2])
            first += piece.shape[2]


def is_small(x: Tensor) -> bool:
    """Whether PyTorch's own norm serves for (B, C, S)."""
    return x[0, 0].numel() <= SMALL


def normalised_in_half(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: float,
    activation: str,
    numbers: list,
    watch: Watch | None = None,
) -> Tensor:
    """Instance norm of a channels-last bfloat16 (B, C, S), then an activation that oneDNN knows by this name and numbers.

    ``watch`` sees the moments of each sample.
    """
    results = []
    for sample in x.split(1):
        scale, shift = scale_and_shift(sample, weight, bias, eps, x.dtype, watch)
        results.append(scaled(sample, scale, shift, activation, numbers))
    return results[0] if len(results) == 1 else channels_last(torch.cat(results))
