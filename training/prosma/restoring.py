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
LEAST_SHARE = 0.5 / 255  # what is below becomes 0 in 8 bits


def allocate_array(_name: str, shape: tuple[int, int, int], components: int | None, dtype) -> np.ndarray:
    """Zeros as (I, J, K), or (components, I, J, K); in memory (components,) K, J, I, as Slicer has one component."""
    if components is None:
        return np.zeros(shape[::-1], dtype).T
    return np.zeros((components, *shape[::-1]), dtype).transpose(0, 3, 2, 1)


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
        if "probabilities" in self.results:
            self.results["probabilities"][0] = 255  # and there it stays where no label is seen
        self._everywhere = bool({"uncertainty", "gate_map"} & {*outputs})
        self._least = min(LEAST_SHARE, 0.99 / classes) if "probabilities" in outputs else 0.99 / classes
        lead = {name: array.ndim - 3 for name, array in self.results.items()}
        views = {name: canonical.view(array) for name, array in self.results.items()}
        self._views = {name: np.moveaxis(view, lead[name] + axis, lead[name]) for name, view in views.items()}
        self._weights = AxisWeights.make(canonical.size[axis], canonical.oriented_shape[axis])
        self._others = [n for n in range(3) if n != axis]
        self._cross_section = [canonical.oriented_shape[n] for n in self._others]
        self._pending: dict[int, np.ndarray] = {}
        self._next_row = 0
        rows_first = [canonical.oriented_shape[axis], *self._cross_section]
        self._touched = [[np.zeros(n, bool) for n in rows_first] for _ in range(classes)]

    def add(self, first: int, block: np.ndarray) -> None:
        """Rows `first`, `first` + 1, ... of the scores: (planes, *S) float32 with only these rows along the axis."""
        block = np.moveaxis(block, self.axis + 1, 1)
        if not self.canonical.resampled:
            window = self._window(block)
            if window is not None:
                self._write(slice(first, first + block.shape[1]), list(block[(..., *window)]), window)
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
            self._write_resampled(row, slab)
            self._next_row += 1
        oldest = index[self._next_row].min() if self._next_row < len(index) else last + 1
        self._pending = {row: plane for row, plane in self._pending.items() if row >= oldest}

    def _write_resampled(self, row: int, slab: np.ndarray) -> None:
        """Writes one row of the image's grid from its scores (planes, *S) on the model's grid."""
        window = self._window(slab)
        if window is None:
            return
        pairs = zip(slab.shape[1:], self._cross_section, window, strict=True)
        window = [AxisWeights.make(n_in, n_out).touched(part.start, part.stop) for n_in, n_out, part in pairs]
        planes = [
            resample(plane, self._cross_section, window)[None]
            if not 0 < n < self.classes or self._seen(plane)
            else None
            for n, plane in enumerate(slab)
        ]
        self._write(slice(row, row + 1), planes, window)

    def _seen(self, plane: np.ndarray) -> np.ndarray:
        """Whether a label's score makes a difference anywhere: as scores sum to 1, a winner has at least 1 / classes."""
        return self._everywhere or plane.max() >= self._least

    def _window(self, planes: np.ndarray) -> list[slice] | None:
        """The part of the cross-section where some label's score makes a difference; None if there is none.

        `planes` is (planes, *cross-section) or (planes, rows, *cross-section).
        """
        if self._everywhere:
            return [slice(0, n) for n in planes.shape[-2:]]
        seen = planes[1 : self.classes].max(axis=tuple(range(planes.ndim - 2))) >= self._least
        ranges = [np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0)]
        return [slice(int(r[0]), int(r[-1]) + 1) for r in ranges] if len(ranges[0]) else None

    def _write(self, rows: slice, planes: list[np.ndarray | None], window: list[slice]) -> None:
        """Writes a part of the oriented results; `planes` are (rows, *window), None for labels not seen in it."""
        scores = planes[: self.classes]
        part = (..., rows, *window)
        self._views["labels"][part] = winners(scores, self._views["labels"].dtype)
        if "probabilities" in self.results:
            self._write_probabilities(part, scores)
        if "uncertainty" in self.results:
            self._views["uncertainty"][part] = to_byte(normalised_entropy(scores))
        if "gate_map" in self.results:
            self._views["gate_map"][part] = to_byte(planes[self.classes])

    def _write_probabilities(self, part, scores: list[np.ndarray | None]) -> None:
        for number, score in enumerate(scores):
            if score is not None:
                share = to_byte(score)
                self._views["probabilities"][number][part] = share
                self._touch(number, part[1:], share > 0)

    def _touch(self, number: int, part, seen: np.ndarray) -> None:
        """Note where a class is seen."""
        for axis, touched in enumerate(self._touched[number]):
            touched[part[axis]] |= seen.any(axis=tuple({0, 1, 2} - {axis}))

    def reach(self) -> list[tuple[tuple[int, int], ...] | None]:
        """For each label the smallest box of the image's (I, J, K) with its 8-bit probabilities above 0, or None."""
        return [self._box(along) if along[0].any() else None for along in self._touched[1:]]

    def _box(self, along: list[np.ndarray]) -> tuple[tuple[int, int], ...]:
        box = [(0, 0)] * 3
        for oriented, touched in zip([self.axis, *self._others], along, strict=True):
            where = np.flatnonzero(touched[::-1] if self.canonical.flips[oriented] else touched)
            box[self.canonical.axes[oriented]] = (int(where[0]), int(where[-1]) + 1)
        return tuple(box)


def normalised_entropy(scores: list[np.ndarray]) -> np.ndarray:
    """Entropy of the class scores over its greatest possible value: 0 (sure) ... 1 (all classes equal)."""
    entropy = np.zeros(scores[0].shape, np.float32)
    for score in scores:
        entropy -= score * np.log(np.maximum(score, 1e-12))
    return entropy / np.float32(np.log(len(scores)))


def to_byte(share: np.ndarray) -> np.ndarray:
    """0 ... 1 as 0 ... 255."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
