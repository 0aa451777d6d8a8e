"""What the class scores of a run say about its result: measured on the model's grid, row by row, without keeping the scores.

Of each label: how many voxels it has, how sure the network is of them, how many voxels it is not sure of, and how large its
surface is. `inference.quality` makes an expected Dice from them. Needs numpy alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..image.constants import MM3_PER_ML
from ..image.resampling import UNIT

UNSURE = (0.1, 0.9)  # probabilities between which a voxel counts as unsure
# Scores above which a voxel is possible, likely, and sure; whole ones, as fractions are compared four times slower.
LEVELS = (int(UNSURE[0] * UNIT), UNIT // 2, math.ceil(UNSURE[1] * UNIT) - 1)
LEAST = 0.02  # a label with no greater probability in a block of rows is not looked for there


@dataclass
class Sums:
    """Of one label: `voxels`, and the volume of each, `voxel_ml` (of pictures in thousandths of a pixel); sums of its
    probability, `inside` them and in `all` voxels; `unsure` voxels, and those `likely`, more likely than not, and `sure`; its
    `greatest` probability; `surface`, mm2 of faces between its voxels and others (without a voxel size: in voxel edges);
    `border`, of those at the grid's end.
    """

    voxel_ml: float
    voxels: int = 0
    inside: float = 0.0
    all: float = 0.0
    unsure: int = 0
    likely: int = 0
    sure: int = 0
    greatest: float = 0.0
    surface: float = 0.0
    border: float = 0.0


class QualityMeter:
    """Takes the same blocks of rows as a `ScoreResampler`, and adds up `sums`, one for each label.

    `axis`: of the model's grid, along which rows come; `spacing` of that grid, mm; `dimension`: for 2 each slice along the
    last axis is an image of its own.
    """

    def __init__(self, classes: int, axis: int, spacing: Sequence[float], dimension: int) -> None:
        volume = float(np.prod(spacing))
        self.sums = [Sums(volume / MM3_PER_ML) for _ in range(classes - 1)]
        self._axis, self._dimension = axis, dimension
        self._faces = [volume / step for step in spacing]
        self._last: list[np.ndarray | None] = [None] * (classes - 1)

    def add(self, block: np.ndarray) -> None:
        """Scores (planes, *S), int16, of the next rows; planes behind those of the classes do not count."""
        scores = block[: len(self.sums) + 1]
        greatest = None
        for number, sums in enumerate(self.sums):
            plane = scores[number + 1]
            highest = int(plane.max())
            sums.greatest = max(sums.greatest, highest / UNIT)
            if highest < LEAST * UNIT:
                self._add_surface(number, sums, np.zeros(plane.shape, bool))
                continue
            if greatest is None:
                greatest = scores.max(axis=0)
            mask = (plane == greatest) & (plane > scores[0])
            sums.voxels += int(np.count_nonzero(mask))
            sums.inside += float(plane[mask].sum(dtype=np.int64)) / UNIT
            sums.all += float(plane.sum(dtype=np.int64)) / UNIT
            possible, likely, sure = (int(np.count_nonzero(plane > level)) for level in LEVELS)
            sums.unsure += possible - sure
            sums.likely += likely
            sums.sure += sure
            self._add_surface(number, sums, mask)

    def _add_surface(self, number: int, sums: Sums, mask: np.ndarray) -> None:
        """Faces between voxels of a label and others, also those of the block before."""
        rows, last = np.moveaxis(mask, self._axis, 0), self._last[number]
        if self._axis < self._dimension:
            if last is None:
                sums.border += self._faces[self._axis] * int(np.count_nonzero(rows[0]))
            else:
                sums.surface += self._faces[self._axis] * int(np.count_nonzero(last != rows[0]))
            self._last[number] = rows[-1].copy()
        if mask.any():
            for axis, face in enumerate(self._faces[: self._dimension]):
                sums.surface += face * int(np.count_nonzero(np.diff(mask, axis=axis)))
                if axis != self._axis:
                    sums.border += face * int(np.count_nonzero(np.take(mask, (0, -1), axis)))

    def close(self) -> list[Sums]:
        """The `sums`, after the last rows."""
        for sums, last in zip(self.sums, self._last, strict=True):
            if last is not None:
                sums.border += self._faces[self._axis] * int(np.count_nonzero(last))
        self._last = [None] * len(self.sums)
        return self.sums
