"""The gate on the decoder's grid, for training on a CPU: averages down to that, and products repeated up from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .gates import repeated_along_last
from .onednn import channels_last, pooled


class ForkFunction(torch.autograd.Function):
    """A skip feature (B, C, S) for the encoder, for its gate's product, and averaged to a grid that divides S.

    The three gradients are added up in one go; PyTorch would make two more tensors of the feature's size.
    """

    @staticmethod
    def forward(ctx, x: Tensor, shape: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        x = channels_last(x)
        ctx.steps = steps_between(x.shape[2:], shape)
        if x.dtype == torch.float32:
            small = pooled(x, shape)
        else:
            small = channels_last(blocks_summed(x, None, ctx.steps) / volume(ctx.steps))
        return x.view_as(x), x.view_as(x), small

    @staticmethod
    def backward(ctx, for_encoder: Tensor, for_product: Tensor, small: Tensor) -> tuple[Tensor, None]:
        total = channels_last(for_encoder) + channels_last(for_product)
        lines = lines_of(channels_last(small) / volume(ctx.steps), ctx.steps)
        blocks(total, ctx.steps).add_(lines)
        return total, None


class RepeatedProductFunction(torch.autograd.Function):
    """x (B, C, S) times a gate on a coarser grid that divides S, repeated by nearest neighbour."""

    @staticmethod
    def forward(ctx, x: Tensor, a: Tensor) -> Tensor:
        x, a = channels_last(x), channels_last(a)
        ctx.save_for_backward(x, a)
        return times_repeated(x, a)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, a = ctx.saved_tensors
        gradient = channels_last(gradient)
        return times_repeated(gradient, a), blocks_summed(gradient, x, steps_between(x.shape[2:], a.shape[2:]))


def times_repeated(x: Tensor, a: Tensor) -> Tensor:
    """A new tensor; both channels last."""
    steps = steps_between(x.shape[2:], a.shape[2:])
    result = torch.empty_like(x)
    torch.mul(blocks(x, steps), lines_of(a, steps), out=blocks(result, steps))
    return result


def steps_between(fine: Sequence[int], coarse: Sequence[int]) -> list[int]:
    return [size // other for size, other in zip(fine, coarse, strict=True)]


def volume(steps: Sequence[int]) -> int:
    """Voxels of the fine grid in one of the coarse grid."""
    return int(torch.tensor(steps).prod())


def blocks(x: Tensor, steps: Sequence[int]) -> Tensor:
    """Channels-last (B, C, X, Y, Z) as a view (B, X / dx, dx, Y / dy, dy, Z C): what lies in a coarse line, in one."""
    sizes = [part for size, step in zip(x.shape[2:-1], steps[:-1], strict=True) for part in (size // step, step)]
    return x.movedim(1, -1).view(len(x), *sizes, x.shape[-1] * x.shape[1])


def lines_of(a: Tensor, steps: Sequence[int]) -> Tensor:
    """A channels-last tensor on the coarse grid, repeated along the last axis, as what `blocks` are multiplied with."""
    if a.dtype == torch.float32:
        lines = repeated_along_last(a, steps[-1])
    else:
        lines = a.movedim(1, -1).repeat_interleave(steps[-1], dim=-2)
    sizes = [part for size in a.shape[2:-1] for part in (size, 1)]
    return lines.reshape(len(a), *sizes, -1)


def blocks_summed(x: Tensor, factor: Tensor | None, steps: Sequence[int]) -> Tensor:
    """Sums of x, or of x times factor, over the voxels of the fine grid in each of the coarse grid, channels last."""
    parts, factors = blocks(x, steps), None if factor is None else blocks(factor, steps)
    total: Tensor | None = None
    for place in (
        torch.cartesian_prod(*(torch.arange(step) for step in steps[:-1])).reshape(-1, len(steps) - 1).tolist()
    ):
        where = (slice(None), *(part for at in place for part in (slice(None), at)))
        if factors is None:
            total = parts[where].clone() if total is None else total.add_(parts[where])
        elif total is None:
            total = parts[where] * factors[where]
        else:
            total.addcmul_(parts[where], factors[where])
    assert total is not None
    lines = total.unflatten(-1, (x.shape[-1] // steps[-1], steps[-1], x.shape[1])).sum(-2)
    return lines.movedim(-1, 1)
