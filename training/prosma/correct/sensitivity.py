"""Moving the border of one label by a shift of its log odds, from 8-bit class probabilities, without a new run.

A shift of s adds s to the natural logarithm of the odds between the label and the best other class. 0 is the model's own
border, exactly; above 0 the label takes background, below 0 it gives voxels up; other labels keep all of theirs. Arrays
may have any axis order. Needs numpy alone.
"""

from __future__ import annotations

import functools

import numpy as np

LARGEST_SHIFT = 5.0  # 8 bits tell odds up to about 1 : 255 apart, e ** 5 = 148
STEPS_PER_UNIT = 20
ALWAYS, NEVER = -128, 127  # as entry levels


def entry_levels(probabilities: np.ndarray, labels: np.ndarray, value: int) -> np.ndarray:
    """The level from which on each voxel belongs to a label: int8, of the shape of `labels`.

    Args:
        probabilities: (classes, ...) uint8 0 ... 255, background first.
        labels: the model's own label map, of shape (...).
        value: the label.

    A voxel belongs to the label with the shift s if its level is at most `level_of(s)`.
    """
    probabilities = np.asarray(probabilities)  # slices of a memory-mapped array cost more than those of a plain one
    levels = np.empty(labels.shape, np.int8)
    for row in range(len(labels)):  # plane by plane all intermediate results stay in the processor's cache
        levels[row] = _levels(probabilities[:, row], labels[row], value)
    return levels


def _levels(probabilities: np.ndarray, labels: np.ndarray, value: int) -> np.ndarray:
    own = probabilities[value]
    best = np.zeros(own.shape, np.uint8)
    for number, other in enumerate(probabilities):
        if number != value:
            np.maximum(best, other, out=best)
    inside = labels == value
    # One look-up for all voxels: picking those out that are not certain costs more than it saves.
    levels = _table().take((inside.astype(np.uint32) << 16) | (own.astype(np.uint32) << 8) | best)
    np.copyto(levels, NEVER, where=(labels != 0) & ~inside)
    return levels


def level_of(shift: float) -> int:
    """The level that belongs to a shift of log odds, which is cut to -LARGEST_SHIFT ... LARGEST_SHIFT."""
    return round(STEPS_PER_UNIT * min(max(shift, -LARGEST_SHIFT), LARGEST_SHIFT))


@functools.cache
def _table() -> np.ndarray:
    """Level at which a voxel enters, flat: by whether it has the label, its probability, that of the best other class.

    Both probabilities are 0 ... 255. These 8 bits are too coarse to say on which side of its own border a voxel lies:
    there whether it has the label decides.
    """
    share = np.arange(256) + 0.5
    levels = np.ceil(STEPS_PER_UNIT * np.log(share[None, :] / share[:, None]))
    levels = np.clip(levels, ALWAYS + 1, NEVER - 1).astype(np.int8)
    levels[0] = NEVER  # nothing is known about how unlikely it is
    return np.stack([np.maximum(levels, 1), np.minimum(levels, 0)]).ravel()
