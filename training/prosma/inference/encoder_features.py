"""The features by which an image is compared with those that a model was trained on.

They are of one patch in its middle, not larger than training images usually are. Of each convolution of the encoder, without
its bias: mean and logarithm of the standard deviation of each channel, before the instance norm takes them away. Of the
normalised image itself: quantiles, differences between channels, and gradients at several scales. Computed in numpy; only
`encoder_features`, which is given a network, imports torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..image.intensity import pad_to_patch

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SCALES = 4  # of gradients; each is half as fine as the one before
SMALL = 1e-3  # added before logarithms


def central_patch(array: np.ndarray, patch: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The middle of a normalised (C, *S), at most as large as `size`, padded to `patch` as `pad_to_patch` does.

    Where `patch` has an axis less, S without its last one, of which the middle is taken.
    """
    if array.ndim - 1 > len(patch):
        array = array[..., array.shape[-1] // 2]
    sides = [min(s, p) for s, p in zip(size, patch, strict=True)]
    starts = [max(0, (n - side) // 2) for n, side in zip(array.shape[1:], sides, strict=True)]
    middle = (slice(None), *(slice(start, start + side) for start, side in zip(starts, sides, strict=True)))
    return pad_to_patch(array[middle], patch)[0]


def encoder_features(
    network: Any, device: str, array: np.ndarray, patch: Sequence[int], size: Sequence[int], half: bool = False
) -> np.ndarray:
    """The features of a normalised image (C, *S), float64 (D,), computed in single precision.

    `network` is a ProSMAUNet on `device`, or its fast twin. With `half` in bfloat16 where that network computes in it on a
    CPU: a third of the time, and scores (`inference.fit`) moved by at most 0.2.
    """
    import torch

    from ..fast.blocks import FastBlock, watched
    from ..fast.norm import moments
    from ..fast.onednn import has_fast_way

    found: list[Any] = []

    def watch(result: Any) -> None:
        if result.device.type == "cpu" and result.is_contiguous(memory_format=layout):
            mean, variance = moments(result)
        else:
            variance, mean = torch.var_mean(result[0].double().flatten(1), dim=1, correction=0)
        found.extend([mean, torch.log(variance.sqrt() + SMALL)])

    middle = central_patch(array, patch, size)
    x = torch.from_numpy(np.ascontiguousarray(middle))[None].to(device)
    layout = torch.channels_last_3d if x.ndim == 5 else torch.channels_last
    x = x.contiguous(memory_format=layout)
    with torch.inference_mode():
        if half and getattr(network, "half_on", "") == "cpu" and has_fast_way(x):
            x = x.bfloat16()
        for block in network.encoder:
            x = block(x, watch) if isinstance(block, FastBlock) else watched(block, x, watch)
    return np.concatenate([torch.cat(found).cpu().numpy(), image_features(middle)])


def image_features(array: np.ndarray) -> np.ndarray:
    """Quantiles of each channel of (C, *S), differences between channels, gradients along each axis at SCALES: (F,)."""
    flat = array.reshape(len(array), -1).astype(np.float64)
    found = [np.quantile(flat, QUANTILES, axis=1).T.ravel()]
    for one, other in itertools.combinations(flat, 2):
        difference = one - other
        found.append(np.array([difference.mean(), np.log(difference.std() + SMALL)]))
    coarse = array.astype(np.float64)
    for _ in range(SCALES):
        found.append(np.array([mean_step(coarse, axis) for axis in range(1, array.ndim)]))
        coarse = halved(coarse)
    return np.concatenate(found)


def image_features_count(model: dict[str, Any]) -> int:
    """How many `image_features` a model's images have."""
    channels, axes = len(model["channels"]), model["dimension"]
    return len(QUANTILES) * channels + channels * (channels - 1) + SCALES * axes


def mean_step(array: np.ndarray, axis: int) -> float:
    """The logarithm of the mean difference between neighbours along an axis; 0 where there are none."""
    return float(np.log(np.abs(np.diff(array, axis=axis)).mean() + SMALL)) if array.shape[axis] > 1 else 0.0


def halved(array: np.ndarray) -> np.ndarray:
    """(C, *S) with the mean of neighbours along each spatial axis of more than one sample."""
    for axis in range(1, array.ndim):
        half = array.shape[axis] // 2
        if half:
            pairs = np.take(array, range(2 * half), axis=axis)
            array = (np.take(pairs, range(0, 2 * half, 2), axis) + np.take(pairs, range(1, 2 * half, 2), axis)) / 2
    return array
