"""The two orders of a volume's axes, by name. Needs numpy alone.

Arrays are indexed (I, J, K), as the columns of `ijk_to_ras` are. In memory they lie (K, J, I), as Slicer, VTK, ITK and their
files have them, so that a volume is never turned: what stands at a wall to one of these is a view, made here.
"""

from __future__ import annotations

import numpy as np


def as_kji(array: np.ndarray) -> np.ndarray:
    """(..., I, J, K) seen as (..., K, J, I), a view.

    >>> as_kji(np.zeros((2, 30, 20, 10))).shape
    (2, 10, 20, 30)
    """
    return array.swapaxes(-1, -3)


def as_ijk(array: np.ndarray) -> np.ndarray:
    """(..., K, J, I) seen as (..., I, J, K), a view."""
    return array.swapaxes(-1, -3)


def channels_first(array: np.ndarray) -> np.ndarray:
    """(K, J, I, C), as SimpleITK and Slicer give several components, seen as (C, I, J, K), a view; other ranks likewise."""
    return array.T


def zeros(shape, dtype, components: int | None = None) -> np.ndarray:
    """Zeros (I, J, K), or (components, I, J, K), that lie in memory as Slicer has one component."""
    lead = () if components is None else (components,)
    return as_ijk(np.zeros((*lead, *tuple(shape)[::-1]), dtype))
