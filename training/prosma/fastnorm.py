"""Instance norm in place, for channels-last tensors on a CPU: a piece at a time, small enough for a core's cache.

PyTorch's own sums over a whole channels-last tensor add one value after the other in single precision: at 96^3 the
variance was off by 8e-4. Here the pieces' moments are added in double precision, which leaves 1e-5, and what follows the
norm (activation, gate) is applied to a piece while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

PIECE_BYTES = 1 << 20  # for each thread: what a core's level-2 cache holds
SMALL = 1 << 14  # voxels up to which PyTorch's sums are accurate (1e-5) and one call for a batch is quicker


def channels_last(x: Tensor) -> Tensor:
    """(B, C, S) with the channels last in memory; itself where they are."""
    return x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)


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
    """Mean and (biased) variance of each channel of a channels-last (1, C, S), float64 (C,)."""
    counts, means, variances = [], [], []
    for piece in pieces(sample):
        mean, variance = torch.batch_norm_update_stats(piece.float(), None, None, 0.0)
        counts.append(piece[0, 0].numel())
        means.append(mean.double())
        variances.append(variance.double())
    share = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    means, variances = torch.stack(means), torch.stack(variances)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0)


def normalise_(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Iterator[tuple[Tensor, slice, slice]]:
    """Instance norm of a channels-last (B, C, S) in place, a piece at a time.

    Args:
        weight, bias: (C,), float32.
        eps: added to the variance.

    Yields each piece's rows while it is in the cache, with the samples and the planes (of the first spatial axis) it holds.
    """
    if x[0, 0].numel() <= SMALL:
        x.copy_(F.group_norm(x, x.shape[1], weight, bias, eps))
        yield rows(x), slice(None), slice(None)
        return
    for number, sample in enumerate(x.split(1)):
        mean, variance = moments(sample)
        scale = weight.double() * torch.rsqrt(variance + eps)
        shift = row_of((bias.double() - mean * scale).float(), sample)
        scale = row_of(scale.float(), sample)
        first = 0
        for piece in pieces(sample):
            lines = rows(piece)
            if piece.dtype == torch.float32:
                torch.addcmul(shift, lines, scale, out=lines)
            else:  # would round scale and shift themselves; batch norm keeps them in single precision
                piece.copy_(F.batch_norm(piece, mean.float(), variance.float(), weight, bias, False, 0.0, eps))
            yield lines, slice(number, number + 1), slice(first, first + piece.shape[2])
            first += piece.shape[2]
