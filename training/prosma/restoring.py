"""From finished rows of class scores on the model's grid to results on the image's grid, without keeping the scores.

Rows arrive in order along one axis (`tiling.slide`). Where the grids differ, scores are interpolated, not labels: a row
of the image's grid is computed as soon as the rows it needs have come, then these are forgotten. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .geometry import Canonical
from .resampling import AxisWeights, label_type, resample, winners

VOLUMES = ("probabilities", "uncertainty", "gate_map")


def allocate_array(_name: str, shape: tuple[int, int, int], components: int | None, dtype) -> np.ndarray:
    """Zeros as (I, J, K), or (components, I, J, K); in memory K, J, I (, components), as Slicer has it."""
    if components is None:
        return np.zeros(shape[::-1], dtype).T
    return np.zeros((*shape[::-1], components), dtype).transpose(3, 2, 1, 0)


class Restorer:
    """Takes blocks of rows through `add` and fills `results`: labels and the volumes asked for, on the image's grid.

    `classes` scores a voxel, background first, that are not negative and sum to 1; behind them one plane for the gate
    map where `outputs` names it. `axis` is the canonical axis that rows arrive along. `allocate` makes the arrays.
    """

    def __init__(
        self,
        canonical: Canonical,
        classes: int,
        axis: int,
        outputs=(),
        allocate: Callable[..., np.ndarray] = allocate_array,
    ) -> None:
        self.canonical = canonical
        self.classes = classes
        self.axis = axis
        shape = canonical.shape
        self.results = {"labels": allocate("labels", shape, None, label_type(classes))}
        for name in outputs:
            self.results[name] = allocate(name, shape, classes if name == "probabilities" else None, np.uint8)
        self._views = {name: canonical.view(array) for name, array in self.results.items()}
        self._weights = AxisWeights.make(canonical.size[axis], canonical.oriented_shape[axis])
        self._cross_section = [n for m, n in enumerate(canonical.oriented_shape) if m != axis]
        self._pending: dict[int, np.ndarray] = {}
        self._next_row = 0

    def add(self, first: int, block: np.ndarray) -> None:
        """Rows `first`, `first` + 1, ... of the scores: (planes, *S) float32 with only these rows along the axis."""
        block = np.moveaxis(block, self.axis + 1, 1)
        if not self.canonical.resampled:
            self._write(slice(first, first + block.shape[1]), list(block))
            return
        for offset in range(block.shape[1]):
            self._pending[first + offset] = block[:, offset].copy()
            self._write_ready_rows(first + offset)

    def _write_ready_rows(self, last: int) -> None:
        """Writes the image's rows that need no row of scores beyond `last`, then drops what no later row needs."""
        index, weight = self._weights.index, self._weights.weight
        while self._next_row < len(index) and index[self._next_row].max() <= last:
            row = self._next_row
            slab = sum(self._pending[i] * w for i, w in zip(index[row], weight[row], strict=True) if w)
            needed = [self._may_matter(plane) for plane in slab[: self.classes]] + [True] * (len(slab) - self.classes)
            planes = [resample(p, self._cross_section)[None] if n else None for p, n in zip(slab, needed, strict=True)]
            self._write(slice(row, row + 1), planes)
            self._next_row += 1
        oldest = index[self._next_row].min() if self._next_row < len(index) else last + 1
        self._pending = {row: plane for row, plane in self._pending.items() if row >= oldest}

    def _may_matter(self, plane: np.ndarray) -> bool:
        """Whether a class can win anywhere here: scores sum to 1, so a winner has at least 1 / classes."""
        return "probabilities" in self.results or "uncertainty" in self.results or plane.max() > 0.99 / self.classes

    def _write(self, rows: slice, planes: list[np.ndarray | None]) -> None:
        """Writes rows of the oriented results; `planes` are (rows, *cross-section), None for classes that cannot win."""
        scores = planes[: self.classes]
        self._rows("labels", rows)[...] = winners(scores, self._views["labels"].dtype)
        if "probabilities" in self.results:
            target = self._rows("probabilities", rows)
            for channel, score in zip(target, scores, strict=True):
                channel[...] = to_byte(score)
        if "uncertainty" in self.results:
            self._rows("uncertainty", rows)[...] = to_byte(normalised_entropy(scores))
        if "gate_map" in self.results:
            self._rows("gate_map", rows)[...] = to_byte(planes[self.classes])

    def _rows(self, name: str, rows: slice) -> np.ndarray:
        """Rows of a result, with the axis they lie along in front (behind the components): a view to write into."""
        view = self._views[name]
        lead = view.ndim - 3
        return np.moveaxis(view, lead + self.axis, lead)[(slice(None),) * lead + (rows,)]


def normalised_entropy(scores: list[np.ndarray]) -> np.ndarray:
    """Entropy of the class scores over its greatest possible value: 0 (sure) ... 1 (all classes equal)."""
    entropy = np.zeros(scores[0].shape, np.float32)
    for score in scores:
        entropy -= score * np.log(np.maximum(score, 1e-12))
    return entropy / np.float32(np.log(len(scores)))


def to_byte(share: np.ndarray) -> np.ndarray:
    """0 ... 1 as 0 ... 255."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
