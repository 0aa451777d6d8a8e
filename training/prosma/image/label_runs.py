"""Runs of voxels of one label along the rows of a label map: a quick look at all its labels. Needs numpy alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BYTES_PER_SLAB = 1 << 22


def slabs_of(labels: np.ndarray) -> Iterator[np.ndarray]:
    """The slices of a label map (K, J, I), so many at once that what is made of them stays small."""
    step = max(1, BYTES_PER_SLAB // max(1, labels[:1].nbytes))
    for start in range(0, len(labels), step):
        yield labels[start : start + step]


def runs_by_value(slab: np.ndarray, start: int) -> Iterator[tuple[int, np.ndarray]]:
    """Pairs (label above 0, its runs as rows of int32: k, j, i of the begin, length) in a slab (K, J, I).

    The slab's first slice is number `start`; runs come in the order of memory.
    """
    begins = np.ones(slab.shape, bool)
    np.not_equal(slab[..., 1:], slab[..., :-1], out=begins[..., 1:])
    flat = np.flatnonzero(begins)
    lengths = np.diff(flat, append=slab.size)
    values = slab.reshape(-1)[flat]
    inside = values > 0
    flat, lengths, values = flat[inside], lengths[inside], values[inside]
    k, j, i = np.unravel_index(flat, slab.shape)
    runs = np.stack([k + start, j, i, lengths], axis=1).astype("<i4")
    order = np.argsort(values, kind="stable")
    found, begin = np.unique(values[order], return_index=True)
    for value, part in zip(found, np.split(runs[order], begin[1:]), strict=False):
        yield int(value), part
