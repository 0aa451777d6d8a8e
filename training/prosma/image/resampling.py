"""Interpolation of arrays between grids of the same extent, and of class scores to labels. Needs numpy alone."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

BLOCK = 1 << 17  # values of the result that are computed at once: they stay in the processor's cache
UNIT = 32000  # a class score of 1 in 16-bit fixed point; leaves room for the rounding of sums below 2 ** 15


@dataclass(frozen=True)
class AxisWeights:
    """Linear interpolation of one axis from n_in to n_out samples on the same extent: `index`, `weight` (n_out, taps).

    When shrinking, the triangle is widened by the factor (antialiasing), as Pillow's and torch's antialiased bilinear.
    Beyond the ends the last sample is repeated.
    """

    index: np.ndarray
    weight: np.ndarray

    @staticmethod
    @functools.lru_cache(maxsize=64)
    def make(n_in: int, n_out: int) -> AxisWeights:
        scale = n_in / n_out
        width = max(1.0, scale)
        centre = (np.arange(n_out) + 0.5) * scale - 0.5
        index = np.floor(centre - width).astype(np.int64)[:, None] + 1 + np.arange(int(np.ceil(2 * width)))
        weight = np.maximum(0.0, 1.0 - np.abs(index - centre[:, None]) / width)
        weight = (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)
        index = np.clip(index, 0, n_in - 1)
        for array in (index, weight):  # shared by all who ask for the same sizes
            array.flags.writeable = False
        return AxisWeights(index, weight)

    def touched(self, low: int, high: int) -> slice:
        """The samples of the result that depend on samples `low` ... `high` - 1."""
        rows = np.flatnonzero(((self.index >= low) & (self.index < high) & (self.weight > 0)).any(axis=1))
        return slice(int(rows[0]), int(rows[-1]) + 1)


def resample(array: np.ndarray, size, window=None) -> np.ndarray:
    """The last len(size) axes of `array` brought to `size`, linearly, float32; the same values where sizes agree.

    `window`, a slice for each of these axes, picks a part of the result; the rest is not computed.

    >>> resample(np.array([[0.0, 8.0], [8.0, 16.0]]), (4, 2)).tolist()
    [[0.0, 8.0], [2.0, 10.0], [6.0, 14.0], [8.0, 16.0]]
    """
    lead = array.ndim - len(size)
    window = window or [slice(None)] * len(size)
    shrink_first = sorted(range(len(size)), key=lambda n: size[n] / array.shape[lead + n])
    for n in shrink_first:
        if array.shape[lead + n] != size[n]:
            array = _resample_axis(array, lead + n, size[n], window[n])
        else:
            array = array[(slice(None),) * (lead + n) + (window[n],)]
    return np.asarray(array, dtype=np.float32)


def _resample_axis(array: np.ndarray, axis: int, n_out: int, window: slice) -> np.ndarray:
    weights = AxisWeights.make(array.shape[axis], n_out)
    taps = weights.index[window].T
    in_memory = sorted(range(array.ndim), key=lambda n: -abs(array.strides[n]))  # whole rows are copied faster
    array, axis = array.transpose(in_memory), in_memory.index(axis)
    along = [1] * array.ndim
    along[axis] = taps.shape[1]
    shape = list(array.shape)
    shape[axis] = taps.shape[1]
    result = np.zeros(shape, np.float32)
    other = int(axis == 0) if array.ndim > 1 else 0
    step = max(1, BLOCK * shape[other] // max(1, result.size)) if array.ndim > 1 else shape[0]
    for start in range(0, shape[other], step):
        block = (slice(None),) * other + (slice(start, start + step),)
        source, target = (array, result) if array.ndim == 1 else (array[block], result[block])
        for index, weight in zip(taps, weights.weight[window].T, strict=True):
            part = np.take(source, index, axis=axis)
            target += np.multiply(part, weight.reshape(along), dtype=np.float32, casting="same_kind")
    return result.transpose(np.argsort(in_memory))


def resample_known(part: np.ndarray, axis: int, n_in: int, n_out: int, start: int) -> np.ndarray:
    """One axis of n_in samples brought to n_out, as `resample`, where only `part` from `start` on is not 0; float32."""
    weights = AxisWeights.make(n_in, n_out)
    count = part.shape[axis]
    rows = weights.touched(start, start + count)
    index = weights.index[rows] - start
    weight = np.where((index >= 0) & (index < count), weights.weight[rows], np.float32(0))
    along = [1] * part.ndim
    along[axis] = len(index)
    shape = list(part.shape)
    shape[axis] = n_out
    result = np.zeros(shape, np.float32)
    target = result[(slice(None),) * axis + (rows,)]
    for places, shares in zip(index.T, weight.T, strict=True):
        target += np.take(part, np.clip(places, 0, count - 1), axis) * shares.reshape(along)
    return result


def resample_far(part: np.ndarray, axis: int, n_in: int, n_out: int, start: int, edge: bool) -> np.ndarray:
    """One axis of n_in samples brought to n_out, as `resample`, where they reach far beyond `part`, which begins at `start`.

    Beyond it they are 0, or with `edge` as its ends. A product with a matrix: nothing as long as n_in is made.
    """
    weights, count = AxisWeights.make(n_in, n_out), part.shape[axis]
    index = weights.index - start
    weight = weights.weight if edge else np.where((index >= 0) & (index < count), weights.weight, np.float32(0))
    matrix = np.zeros((n_out, count), np.float32)
    np.add.at(matrix, (np.arange(n_out)[:, None], np.clip(index, 0, count - 1)), weight)
    return np.moveaxis(np.tensordot(matrix, part.astype(np.float32), (1, axis)), 0, axis)


def resample_nearest(labels: np.ndarray, size) -> np.ndarray:
    """Labels brought to `size` (one number per axis), nearest neighbour on the same extent."""
    for axis, n_out in enumerate(size):
        n_in = labels.shape[axis]
        if n_in != n_out:
            index = np.floor((np.arange(n_out) + 0.5) * n_in / n_out).astype(np.int64)
            labels = np.take(labels, np.clip(index, 0, n_in - 1), axis=axis)
    return np.ascontiguousarray(labels)


def label_type(classes: int) -> np.dtype:
    """The integer type of a label map with so many classes, background included."""
    return np.dtype(np.uint8 if classes <= 256 else np.uint16)


def argmax_labels(scores: Iterable[np.ndarray | None], dtype=np.uint8) -> np.ndarray:
    """Argmax over equally shaped score arrays, the first where several are equal; None stands for one that cannot be.

    Takes any iterable, one score array at a time, so that a stack of all need not exist. ValueError where it has none.
    """
    best = labels = None
    for index, score in enumerate(scores):
        if score is None:
            continue
        if best is None or labels is None:
            best, labels = score.copy(), np.full(score.shape, index, dtype)
        else:  # the index rises, so that a maximum sets it; 7 times faster than setting it where the mask is true
            np.maximum(labels, (score > best) * labels.dtype.type(index), out=labels)
            np.maximum(best, score, out=best)
    if labels is None:
        raise ValueError("There are no scores to compare.")
    return labels
