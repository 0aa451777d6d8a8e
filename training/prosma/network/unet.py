"""ProSMA-UNet: a plain convolutional U-Net whose skips are gated, in 2D and 3D.

The backbone is deliberately neutral (convolution 3, instance norm, LeakyReLU, twice a stage; strided convolutions down,
transposed convolutions up), so that networks that differ in ``skip`` differ in nothing else. The gates are in
`gate.py`, attention at the coarsest stage, which no network has by default, in `bottleneck.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .bottleneck import make_bottleneck
from .gate import CONVOLUTION, ProximalSkipGate, instance_norm, per_axis

SKIPS = ("prosma", "attention", "plain")
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}

SMALL = (16, 32, 64, 128, 256)
NORMAL = (32, 64, 128, 256, 320)


class ConvolutionBlock(nn.Sequential):
    """Twice: convolution, instance norm (affine), LeakyReLU 0.01. (B, in, S) -> (B, out, S / stride)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
    ) -> None:
        padding = tuple(k // 2 for k in kernel)
        convolution = CONVOLUTION[spatial_dims]
        super().__init__(
            convolution(in_channels, out_channels, kernel, stride, padding),
            instance_norm(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
            convolution(out_channels, out_channels, kernel, 1, padding),
            instance_norm(out_channels, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )
        for layer in self:
            if isinstance(layer, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(layer.weight, a=0.01)
                nn.init.zeros_(cast(Tensor, layer.bias))


class AttentionSkip(nn.Module):
    """The additive attention gate of Oktay et al. (arXiv 1804.03999) on the skip's grid: one weight a voxel, never zero.

    (B, C, S), (B, Cg, S) -> (B, C, S).
    """

    def __init__(self, spatial_dims: int, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        convolution = CONVOLUTION[spatial_dims]
        hidden = max(1, skip_channels // 2)
        self.project_skip = convolution(skip_channels, hidden, 1, bias=False)
        self.project_decoder = convolution(gating_channels, hidden, 1)
        self.attention = convolution(hidden, 1, 1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        return x * torch.sigmoid(self.attention(F.relu(self.project_skip(x) + self.project_decoder(g))))


class ProSMAUNet(nn.Module):
    """U-Net with proximal-sparse, attention or plain skips.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: classes, background included.
        features: channels of each stage, full resolution first.
        strides: downsampling into each stage, one number or one per axis each; the first is 1. Default 1, 2, 2, ...
        kernel_sizes: convolution kernel of each stage, one odd number or one per axis each. Default 3.
        skip: ``prosma``, ``attention`` or ``plain``.
        gate, dilations, channel_gate, field_grid, threshold_init, gain_init: of `ProximalSkipGate`, for ``skip="prosma"``.
        bottleneck: ``none``, or ``attention`` for so many ``bottleneck_blocks`` after the coarsest stage of the encoder, with
            ``bottleneck_heads``, which divide its channels: see `bottleneck.AttentionBlock`.
        deep_supervision: adds a head at every decoder stage; in training mode the network then returns a list. Set to
            False later, it leaves the heads unused.

    ``gates`` holds the skips' gates in decoder order, coarse to fine.

    >>> network = ProSMAUNet(3, 1, 4, (8, 16, 32), field_grid="decoder")
    >>> network(torch.zeros(2, 1, 20, 24, 17)).shape  # logits, of any size
    torch.Size([2, 4, 20, 24, 17])
    >>> len(network.gates)
    2
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        features: Sequence[int] = SMALL,
        strides: Sequence[int | Sequence[int]] | None = None,
        kernel_sizes: Sequence[int | Sequence[int]] | None = None,
        *,
        skip: str = "prosma",
        gate: str = "box",
        dilations: Sequence[int] = (1, 2, 3),
        channel_gate: bool = True,
        field_grid: str = "skip",
        threshold_init: float = 0.25,
        gain_init: float = 0.5,
        bottleneck: str = "none",
        bottleneck_blocks: int = 2,
        bottleneck_heads: int = 4,
        deep_supervision: bool = False,
    ) -> None:
        super().__init__()
        stages = len(features)
        steps, kernels = stage_sizes(spatial_dims, features, strides, kernel_sizes, skip)

        self.spatial_dims = spatial_dims
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.deep_supervision = deep_supervision
        self.divisor = tuple(int(torch.tensor(axis).prod()) for axis in zip(*steps, strict=True))

        channels = [in_channels, *features]
        self.encoder = nn.ModuleList(
            ConvolutionBlock(spatial_dims, channels[stage], channels[stage + 1], kernels[stage], steps[stage])
            for stage in range(stages)
        )
        self.upsamplings, self.gates, self.decoder = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for stage in reversed(range(stages - 1)):
            fine, coarse = features[stage], features[stage + 1]
            step = steps[stage + 1]
            self.upsamplings.append(TRANSPOSED[spatial_dims](coarse, fine, step, step))
            self.decoder.append(ConvolutionBlock(spatial_dims, 2 * fine, fine, kernels[stage], (1,) * spatial_dims))
        self.head = CONVOLUTION[spatial_dims](features[0], out_channels, 1)
        heads = [CONVOLUTION[spatial_dims](features[n], out_channels, 1) for n in reversed(range(1, stages - 1))]
        self.auxiliary_heads = nn.ModuleList(heads if deep_supervision else [])
        self.coarse_gating = skip == "prosma" and field_grid == "decoder"
        # Last, so that after one torch.manual_seed networks with different skips start from the same other weights.
        gate_arguments = {
            "gate": gate,
            "dilations": dilations,
            "channel_gate": channel_gate,
            "field_grid": field_grid,
            "threshold_init": threshold_init,
            "gain_init": gain_init,
        }
        for stage in reversed(range(stages - 1)):
            if skip != "plain":
                self.gates.append(self._make_gate(features, stage, kernels[stage], skip, gate_arguments))
        self.bottleneck = make_bottleneck(bottleneck, spatial_dims, features[-1], bottleneck_blocks, bottleneck_heads)

    def _make_gate(
        self, features: Sequence[int], stage: int, kernel: tuple[int, ...], skip: str, arguments: dict[str, Any]
    ) -> nn.Module:
        """The gate of the skip from the encoder's `stage`."""
        fine, coarse = features[stage], features[stage + 1]
        if skip == "attention":
            return AttentionSkip(self.spatial_dims, fine, fine)
        gating = coarse if self.coarse_gating else fine
        return ProximalSkipGate(self.spatial_dims, fine, gating, kernel_size=kernel, **arguments)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, in_channels, S) -> logits (B, out_channels, S).

        S that the strides do not divide is padded with its edge values inside and cropped back. In training mode with
        deep supervision: a list of logits, full resolution first, then each coarser decoder stage.
        """
        if x.ndim != self.spatial_dims + 2 or x.shape[1] != self.in_channels:
            raise ValueError(
                f"The network takes (batch, {self.in_channels}, {self.spatial_dims} spatial axes), not {tuple(x.shape)}"
            )
        shape = x.shape[2:]
        x = pad_to_multiple(x, self.divisor)
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        features.pop()
        x = self.bottleneck(x)
        auxiliary = []
        for level, (upsampling, block) in enumerate(zip(self.upsamplings, self.decoder, strict=True)):
            coarse, skip = x, features.pop()
            x = upsampling(coarse)
            if len(self.gates):
                skip = self.gates[level](skip, coarse if self.coarse_gating else x)
            x = block(torch.cat([x, skip], dim=1))
            if self.training and self.deep_supervision and level < len(self.auxiliary_heads):
                auxiliary.append(self.auxiliary_heads[level](x))
        inside = (..., *(slice(size) for size in shape))
        logits = self.head(x)[inside]
        return [logits, *reversed(auxiliary)] if auxiliary else logits


def stage_sizes(
    spatial_dims: int,
    features: Sequence[int],
    strides: Sequence[int | Sequence[int]] | None,
    kernel_sizes: Sequence[int | Sequence[int]] | None,
    skip: str,
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Stride and kernel of each stage along each axis. ValueError for arguments that cannot describe a network."""
    strides = [1] + [2] * (len(features) - 1) if strides is None else strides
    kernel_sizes = [3] * len(features) if kernel_sizes is None else kernel_sizes
    check_arguments(spatial_dims, features, strides, kernel_sizes, skip)
    steps, kernels = ([per_axis(size, spatial_dims) for size in sizes] for sizes in (strides, kernel_sizes))
    return steps, kernels


def check_arguments(
    spatial_dims: int, features: Sequence[int], strides: Sequence, kernel_sizes: Sequence, skip: str
) -> None:
    """Raise ValueError with the reason if these cannot describe a network."""
    if spatial_dims not in CONVOLUTION:
        raise ValueError(f"spatial_dims should be 2 or 3, not {spatial_dims}")
    if skip not in SKIPS:
        raise ValueError(f"skip should be one of {', '.join(SKIPS)}, not {skip!r}")
    if len(features) < 2:
        raise ValueError(f"features should hold at least two stages, not {tuple(features)}")
    if len(strides) != len(features) or len(kernel_sizes) != len(features):
        raise ValueError(
            f"features, strides and kernel_sizes should be of one length, not "
            f"{len(features)}, {len(strides)} and {len(kernel_sizes)}"
        )
    if set(per_axis(strides[0], spatial_dims)) != {1}:
        raise ValueError(f"The first stride should be 1 (full resolution), not {strides[0]}")
    if any(size % 2 == 0 for kernel in kernel_sizes for size in per_axis(kernel, spatial_dims)):
        raise ValueError(f"kernel_sizes should be odd, not {tuple(kernel_sizes)}")


def pad_to_multiple(x: Tensor, divisor: Sequence[int]) -> Tensor:
    """Pad the end of each spatial axis of (B, C, S) with its edge values up to a multiple of ``divisor``.

    An image that would shrink to a single voxel is padded to two, because a single value has no instance norm.
    """
    shape = [size + -size % d for size, d in zip(x.shape[2:], divisor, strict=True)]
    if shape == list(divisor):
        shape[-1] *= 2
    missing = [padded - size for padded, size in zip(shape, x.shape[2:], strict=True)]
    if not any(missing):
        return x
    return F.pad(x, [amount for size in reversed(missing) for amount in (0, size)], mode="replicate")
