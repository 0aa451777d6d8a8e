"""The features by which an image is compared with those that a model was trained on.

They are of one patch in its middle, not much larger than training images usually are. Of each convolution of the encoder,
without its bias: mean and logarithm of the standard deviation of each channel, before the instance norm takes them away. Of
the normalised image itself: quantiles, differences between channels, and gradients at several scales. Computed in numpy;
only `encoder_features`, which is given a network, imports torch.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..image.intensity import pad_to_patch
from .sliding_window import tile_starts

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SCALES = 4  # of gradients; each is half as fine as the one before
SMALL = 1e-3  # added before logarithms
CLOSE, MORE = 1 / 8, 1.25  # of tiles that are looked at, see `part_looked_at`


def central_patch(array: np.ndarray, patch: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """The part of a normalised (C, *S) that is looked at, padded to `patch` as `pad_to_patch` does.

    Where `patch` has an axis less, S without its last one, of which the middle is taken.
    """
    if array.ndim - 1 > len(patch):
        array = array[..., array.shape[-1] // 2]
    return pad_to_patch(array[(slice(None), *part_looked_at(array.shape[1:], patch, size))], patch)[0]


def part_looked_at(shape: Sequence[int], patch: Sequence[int], size: Sequence[int]) -> tuple[slice, ...]:
    """The middle, at most as large as `size`; or the tile of a run that is nearly that, which then is looked at once alone.

    Nearly: no farther from the middle than CLOSE of its length, and holding no more than MORE times as many voxels.
    """
    usual = [min(s, p) for s, p in zip(size, patch, strict=True)]
    sides = [min(n, p) for n, p in zip(shape, patch, strict=True)]
    starts = [nearest_start(n, p) for n, p in zip(shape, patch, strict=True)]
    away = [abs(2 * start - (n - side)) / 2 for start, n, side in zip(starts, shape, sides, strict=True)]
    is_close = all(distance <= CLOSE * p for distance, p in zip(away, patch, strict=True))
    if not is_close or math.prod(sides) > MORE * math.prod(usual):
        sides = [min(n, side) for n, side in zip(shape, usual, strict=True)]
        starts = [(n - side) // 2 for n, side in zip(shape, sides, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def nearest_start(size: int, patch: int) -> int:
    """Where the tile begins that is nearest to an axis's middle; the first of two."""
    return min(tile_starts(size, patch, None), key=lambda start: abs(2 * start - (size - patch)))


def encoder_features(
    network: Any,
    device: str,
    array: np.ndarray,
    patch: Sequence[int],
    size: Sequence[int],
    half: bool = False,
    keep: bool = False,
    of_image: np.ndarray | None = None,
) -> np.ndarray:
    """The features of a normalised image (C, *S), float64 (D,), computed in single precision.

    `network` is a ProSMAUNet on `device`, or its fast twin. With `half` in bfloat16 where that network computes in it on a
    CPU: a third of the time, and scores (`inference.fit`) moved by at most 0.2. With `keep` the fast twin on a CPU keeps what
    its encoder made of the patch, for a tile that is the same (`FastNetwork.kept`). `of_image`: the patch's own
    `image_features`, where they are known.
    """
    import torch

    from ..fast.blocks import watched
    from ..fast.network import FastNetwork
    from ..fast.onednn import has_fast_way

    found: list[Any] = []

    def watch(mean: Any, variance: Any) -> None:
        found.extend([mean, torch.log(variance.sqrt() + SMALL)])

    middle = central_patch(array, patch, size)
    x = torch.from_numpy(np.ascontiguousarray(middle))[None].to(device)
    x = x.contiguous(memory_format=torch.channels_last_3d if x.ndim == 5 else torch.channels_last)
    with torch.inference_mode():
        if half and getattr(network, "half_on", "") == "cpu" and has_fast_way(x):
            x = x.bfloat16()
        if isinstance(network, FastNetwork):
            encoded = network.encode(x, watch)
            network.kept = encoded if keep and x.device.type == "cpu" else None
        else:
            for block in network.encoder:
                x = watched(block, x, watch)
    of_image = image_features(middle) if of_image is None else of_image
    return np.concatenate([torch.cat(found).cpu().numpy(), of_image])


def image_features(array: np.ndarray) -> np.ndarray:
    """Quantiles of each channel of (C, *S), differences between channels, gradients along each axis at SCALES: (F,)."""
    flat = array.reshape(len(array), -1)
    found = [quantiles(flat).ravel()]
    for one, other in itertools.combinations(flat.astype(np.float64), 2):
        difference = one - other
        found.append(np.array([difference.mean(), np.log(difference.std() + SMALL)]))
    coarse = array
    for _ in range(SCALES):
        found.append(np.array([mean_step(coarse, axis) for axis in range(1, array.ndim)]))
        coarse = halved(coarse)
    return np.concatenate(found)


def quantiles(values: np.ndarray) -> np.ndarray:
    """QUANTILES of each row of (C, N), float64 (C, 5), as numpy's; from a sorted array, which takes a fifth of its time."""
    in_order, places = np.sort(values, axis=1), np.array(QUANTILES) * (values.shape[1] - 1)
    low = places.astype(np.int64)
    high = np.minimum(low + 1, values.shape[1] - 1)
    one, other = (in_order[:, index].astype(np.float64) for index in (low, high))
    return one + (other - one) * (places - low)


def image_features_count(model: dict[str, Any]) -> int:
    """How many `image_features` a model's images have."""
    channels, axes = len(model["channels"]), model["dimension"]
    return len(QUANTILES) * channels + channels * (channels - 1) + SCALES * axes


def mean_step(array: np.ndarray, axis: int) -> float:
    """The logarithm of the mean difference between neighbours along an axis; 0 where there are none."""
    if array.shape[axis] == 1:
        return 0.0
    steps = np.diff(array, axis=axis)
    return float(np.log(np.abs(steps, out=steps).mean(dtype=np.float64) + SMALL))


def halved(array: np.ndarray) -> np.ndarray:
    """(C, *S) with the mean of neighbours along each spatial axis of more than one sample."""
    for axis in range(1, array.ndim):
        half = array.shape[axis] // 2
        if half:
            before, after = ((slice(None),) * axis + (slice(start, 2 * half, 2),) for start in (0, 1))
            array = (array[before] + array[after]) / 2
    return array
