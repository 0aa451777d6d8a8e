"""Intensity rules of `model.json`: the same function prepares voxels for training and for inference."""

from __future__ import annotations

import numpy as np

SAMPLED_VOXELS = 4_000_000  # percentiles of larger channels are taken from evenly spaced voxels


def normalise(array: np.ndarray, intensity: dict, copy: bool = True) -> np.ndarray:
    """`array` (C, ...) after the rule as float32, each channel on its own; in place where `copy` is false and it can.

    Rules: `zscore` (mean 0, standard deviation 1), `clip-zscore` (first clipped to `percentiles`), `ct` (clipped to
    `clip`, then (x - mean) / std with the training set's `mean` and `std`), `range` (`low`..`high` to 0..1, clipped).
    A constant channel becomes 0 under the z-score rules. ValueError for an unknown rule.
    """
    result = np.array(array, dtype=np.float32, order="C") if copy else np.ascontiguousarray(array, dtype=np.float32)
    for channel in result:
        _normalise_channel(channel, intensity)
    return result


def _normalise_channel(channel: np.ndarray, intensity: dict) -> None:
    rule = intensity["rule"]
    if rule == "clip-zscore":
        step = max(1, channel.size // SAMPLED_VOXELS)
        low, high = np.percentile(channel.reshape(-1)[::step], intensity.get("percentiles", (0.5, 99.5)))
        np.clip(channel, np.float32(low), np.float32(high), out=channel)
    if rule in ("zscore", "clip-zscore"):
        mean = channel.mean(dtype=np.float64)
        channel -= np.float32(mean)
        deviation = np.sqrt(np.mean(np.square(channel), dtype=np.float64))
        # Rounding leaves a constant channel with a tiny spread, which must not be blown up to noise.
        if deviation > 1e-6 * max(1e-6, abs(mean)):
            channel /= np.float32(deviation)
        else:
            channel[...] = 0
    elif rule == "ct":
        np.clip(channel, *(np.float32(v) for v in intensity["clip"]), out=channel)
        channel -= np.float32(intensity["mean"])
        channel /= np.float32(intensity["std"])
    elif rule == "range":
        low, high = float(intensity["low"]), float(intensity["high"])
        channel -= np.float32(low)
        channel /= np.float32(high - low)
        np.clip(channel, 0, 1, out=channel)
    else:
        raise ValueError(f"Unknown intensity rule: {rule!r}.")


def pad_to_patch(array: np.ndarray, patch_size) -> tuple[np.ndarray, tuple[slice, ...]]:
    """`array` (C, *spatial), normalised, with 0 on both sides up to `patch_size`; and where its voxels now lie.

    Training and inference pad small images in this same way, because InstanceNorm sees the padding.
    """
    before = [max(0, p - n) // 2 for n, p in zip(array.shape[1:], patch_size, strict=True)]
    after = [max(0, p - n) - b for n, p, b in zip(array.shape[1:], patch_size, before, strict=True)]
    inside = tuple(slice(b, b + n) for b, n in zip(before, array.shape[1:], strict=True))
    if any(before) or any(after):
        array = np.pad(array, [(0, 0), *zip(before, after, strict=True)])
    return array, inside


def foreground(array: np.ndarray, patch_size) -> tuple[slice, ...]:
    """The box of an array (C, *spatial), normalised, outside which each channel has its lowest value everywhere.

    That is the air around a patient, which `ct` clips to one value, and the zeros around a masked brain. The box is
    an eighth of a patch wider on each side and at least as large as a patch, as far as the array goes.
    """
    seen = np.zeros(array.shape[1:], bool)
    for channel in array:
        seen |= channel > channel.min()
    if not seen.any():
        return tuple(slice(0, n) for n in array.shape[1:])
    return tuple(_widened(seen, axis, patch) for axis, patch in enumerate(patch_size))


def _widened(seen: np.ndarray, axis: int, patch: int) -> slice:
    """Where something is seen along an axis, with the margin and the least length of `foreground`."""
    size = seen.shape[axis]
    where = np.flatnonzero(seen.any(axis=tuple(n for n in range(seen.ndim) if n != axis)))
    low, high = max(0, int(where[0]) - patch // 8), min(size, int(where[-1]) + 1 + patch // 8)
    length = max(high - low, min(patch, size))
    low = min(max(0, (low + high - length) // 2), size - length)
    return slice(low, low + length)
