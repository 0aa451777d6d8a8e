"""Resampling of class scores back to the image's grid and their argmax, row by row, without keeping the scores.

Rows arrive in order along one axis (`sliding_window`). Where the grids differ, scores are interpolated, not labels: a row
of the image's grid is computed as soon as the rows it needs have come, then these are forgotten. Needs numpy alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..image.axes import zeros
from ..image.box import Box, span
from ..image.geometry import Canonical
from ..image.resampling import UNIT, AxisWeights, argmax_labels, label_type, resample

Planes = list[Any]  # an array of scores for each class, None for a label that nobody needs here
LEAST_SHARE = 0.5 / 255  # what is below becomes 0 in 8 bits


def allocate_array(_name: str, shape: tuple[int, int, int], components: int | None, dtype) -> np.ndarray:
    """Zeros as (I, J, K), or (components, I, J, K), that lie in memory as Slicer has them."""
    return zeros(shape, dtype, components)


class ScoreResampler:
    """Takes blocks of rows through `add` and fills `results`: labels and the volumes asked for, on the image's grid.

    `classes` scores a voxel, background first, that are not negative and sum to UNIT, int16; behind them one plane for
    the gate map where `outputs` names it. `axis` is the canonical axis that rows arrive along. `inside`, a slice for each
    canonical axis, is the part of the model's grid that scores come for; the rest is background. `allocate` makes the
    arrays.
    """

    def __init__(
        self,
        canonical: Canonical,
        classes: int,
        axis: int,
        outputs: Sequence[str] = (),
        allocate: Callable[..., np.ndarray] = allocate_array,
        inside: Sequence[slice] | None = None,
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
        least = min(LEAST_SHARE, 0.99 / classes) if "probabilities" in outputs else 0.99 / classes
        self._least = UNIT * least
        lead = {name: array.ndim - 3 for name, array in self.results.items()}
        views = {name: canonical.view(array) for name, array in self.results.items()}
        self._views = {name: np.moveaxis(view, lead[name] + axis, lead[name]) for name, view in views.items()}
        self._weights = AxisWeights.make(canonical.size[axis], canonical.oriented_shape[axis])
        self._others = [n for n in range(3) if n != axis]
        inside = inside or [slice(0, n) for n in canonical.size]
        self._rows = inside[axis]
        self._part = [inside[n] for n in self._others]
        self._model_section = [canonical.size[n] for n in self._others]
        self._cross_section = [canonical.oriented_shape[n] for n in self._others]
        self._pending: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # scores and their greatest values
        self._next_row = 0
        rows_first = [canonical.oriented_shape[axis], *self._cross_section]
        self._touched = [[np.zeros(n, bool) for n in rows_first] for _ in range(classes)]

    def add(self, first: int, block: np.ndarray) -> None:
        """Rows `first`, `first` + 1, ... of the scores: (planes, *S) int16 with only these rows along the axis.

        Rows are counted from the beginning of `inside`, and come in order.
        """
        block = np.moveaxis(block, self.axis + 1, 1)
        first += self._rows.start
        if not self.canonical.resampled:
            self._write_as_they_are(first, block)
            return
        for offset in range(block.shape[1]):
            scores = block[:, offset].copy()
            self._pending[first + offset] = scores, scores.max(axis=(1, 2))
            self._write_ready_rows(first + offset)

    def _write_as_they_are(self, first: int, block: np.ndarray) -> None:
        """Writes rows of scores (planes, rows, *part) where the grids agree."""
        planes: Planes = [plane if self._needed(n, plane.max()) else None for n, plane in enumerate(block)]
        window = self._window(planes)
        if window is None:
            return
        planes = [None if plane is None else plane[:, window[0], window[1]] for plane in planes]
        place = [slice(w.start + p.start, w.stop + p.start) for w, p in zip(window, self._part, strict=True)]
        self._write(slice(first, first + block.shape[1]), planes, place)

    def _write_ready_rows(self, last: int) -> None:
        """Writes the image's rows that need no row of scores beyond `last`, then drops what no later row needs."""
        index = self._weights.index
        if last == self._rows.stop - 1:
            last = self.canonical.size[self.axis]  # nothing but background follows
        while self._next_row < len(index) and index[self._next_row].max() <= last:
            self._write_resampled(self._next_row)
            self._next_row += 1
        oldest = index[self._next_row].min() if self._next_row < len(index) else last + 1
        self._pending = {row: plane for row, plane in self._pending.items() if row >= oldest}

    def _write_resampled(self, row: int) -> None:
        """Writes one row of the image's grid, interpolated from the pending rows of scores (planes, *part)."""
        pairs = zip(self._weights.index[row], self._weights.weight[row], strict=True)
        taps = [(*self._pending[i], w) for i, w in pairs if w and i in self._pending]
        if not taps:
            return
        highest = np.max([most for _, most, _ in taps], axis=0)
        planes: Planes = [
            functools.reduce(np.add, [scores[n] * w for scores, _, w in taps]) if self._needed(n, most) else None
            for n, most in enumerate(highest)
        ]
        planes[0] += UNIT * max(0.0, 1 - sum(w for *_, w in taps))  # rows that are not there are background
        window = self._window(planes)
        if window is None:
            return
        sections = zip(self._model_section, self._cross_section, window, self._part, strict=True)
        window = [
            AxisWeights.make(n_in, n_out).touched(seen.start + part.start, seen.stop + part.start)
            for n_in, n_out, seen, part in sections
        ]
        planes = [None if plane is None else self._resample(n, plane, window) for n, plane in enumerate(planes)]
        self._write(slice(row, row + 1), planes, window)

    def _resample(self, number: int, plane: np.ndarray, window: list[slice]) -> np.ndarray:
        """The `window` of one row (1, *window) of a class on the image's grid, from its scores in `_part`."""
        if plane.shape != tuple(self._model_section):
            whole = np.full(self._model_section, 0 if number else UNIT, np.float32)
            whole[tuple(self._part)] = plane
            plane = whole
        return resample(plane, self._cross_section, window)[None]

    def _needed(self, number: int, highest: float) -> bool:
        """Whether a plane with this greatest score can make a difference; background and gate map always may.

        As scores sum to 1, the greatest has at least 1 / classes.
        """
        return not 0 < number < self.classes or self._everywhere or highest >= self._least

    def _window(self, planes: Planes) -> list[slice] | None:
        """The part of the cross-section where some label's score makes a difference; None if there is none.

        `planes` are (*part) or (rows, *part), None for labels not needed; the window counts from the part's corner.
        """
        if self._everywhere:
            return [slice(0, n) for n in planes[0].shape[-2:]]
        seen = np.zeros(planes[0].shape[-2:], bool)
        for plane in planes[1 : self.classes]:
            if plane is not None:
                seen |= (plane >= self._least).any(axis=tuple(range(plane.ndim - 2)))
        ranges = [np.flatnonzero(seen.any(axis=axis)) for axis in (1, 0)]
        return [slice(int(r[0]), int(r[-1]) + 1) for r in ranges] if len(ranges[0]) else None

    def _write(self, rows: slice, planes: Planes, window: list[slice]) -> None:
        """Writes a part of the oriented results; `planes` are (rows, *window), None for labels not seen in it."""
        scores = planes[: self.classes]
        part: tuple[Any, ...] = (..., rows, *window)
        self._views["labels"][part] = argmax_labels(scores, self._views["labels"].dtype)
        if "probabilities" in self.results:
            self._write_probabilities(part, scores)
        if "uncertainty" in self.results:
            self._views["uncertainty"][part] = to_byte(normalised_entropy([as_share(score) for score in scores]))
        if "gate_map" in self.results:
            self._views["gate_map"][part] = to_byte(as_share(planes[self.classes]))

    def _write_probabilities(self, part, scores: Planes) -> None:
        for number, score in enumerate(scores):
            if score is not None:
                share = to_byte(as_share(score))
                self._views["probabilities"][number][part] = share
                self._touch(number, part[1:], share > 0)

    def _touch(self, number: int, part, seen: np.ndarray) -> None:
        """Note where a class is seen."""
        for axis, touched in enumerate(self._touched[number]):
            touched[part[axis]] |= seen.any(axis=tuple({0, 1, 2} - {axis}))

    def reach(self) -> list[Box | None]:
        """For each label the smallest box of the image's (I, J, K) with its 8-bit probabilities above 0, or None."""
        return [self._box(along) if along[0].any() else None for along in self._touched[1:]]

    def _box(self, along: list[np.ndarray]) -> Box:
        spans = {}
        for oriented, touched in zip([self.axis, *self._others], along, strict=True):
            flipped = self.canonical.flips[oriented]
            spans[self.canonical.axes[oriented]] = span(touched[::-1] if flipped else touched)
        return tuple(spans[axis] or (0, 0) for axis in range(3))


def normalised_entropy(scores: list[np.ndarray]) -> np.ndarray:
    """Entropy of class scores that sum to 1 over its greatest possible value: 0 (sure) ... 1 (all classes equal)."""
    entropy = np.zeros(scores[0].shape, np.float32)
    for score in scores:
        entropy -= score * np.log(np.maximum(score, 1e-12))
    return entropy / np.float32(np.log(len(scores)))


def as_share(score: np.ndarray) -> np.ndarray:
    """0 ... UNIT as 0 ... 1, float32."""
    return np.multiply(score, np.float32(1 / UNIT), dtype=np.float32)


def to_byte(share: np.ndarray) -> np.ndarray:
    """0 ... 1 as 0 ... 255."""
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
