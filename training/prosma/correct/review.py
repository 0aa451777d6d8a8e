"""Where to look first: the places of a segmentation that are likely to hide most wrong voxels.

A voxel's expected error is 1 minus the probability of the label that it has. Uncertain voxels are gathered in small
cells; the ball of cells with the greatest expected error becomes the first region, and so on with what is left. Islands,
parts of a label far smaller than its main part and apart from it, are regions of their own. Arrays may have any axis
order. Needs numpy and SimpleITK alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..steps import finish

UNCERTAIN = 48  # of 255: voxels with a smaller expected error count only in islands
RADIUS_SHARE = 0.2  # of a region, of the radius of a ball as large as a typical label
LEAST_RADIUS = 1.5  # mm where voxels have a size, and at least as many of the smallest voxel edges
CELLS_PER_RADIUS = 2
ISLAND_SHARE = 0.2  # an island has at most this share of its label's voxels
LEAST_ERROR = 1.0  # expected wrong voxels below which no region is worth a look
MOST_DOUBT = 4.0  # times as many wrong voxels, or as few, as the probabilities say
MOST_ISLANDS = 50  # of a label, the largest
MOST_CELLS = 1 << 20
VOXELS_PER_STEP = 1 << 18
CELLS_PER_STEP = 64


@dataclass(frozen=True)
class Region:
    """One place to look at.

    `label`: the label in question (1, 2, ...). `centre`: index of its middle along each axis, not rounded. `voxels`: its
    uncertain voxels; of an island all. `error`: how many of them are wrong, as far as the model knows. `island`: whether
    it is one. `radius`: about its size, in the unit of the spacing. `index`: of its voxels, (axes, voxels).
    """

    label: int
    centre: tuple[float, ...]
    voxels: int
    error: float
    island: bool
    radius: float
    index: np.ndarray

    def doubted(self, times: float) -> Region:
        """The region with so many times the error, at most all its voxels."""
        return replace(self, error=min(float(self.voxels), self.error * times))


def find_regions(*arguments, **options) -> list[Region]:
    """The regions, worst first. Arguments as for `find_regions_in_steps`."""
    return finish(find_regions_in_steps(*arguments, **options))


def find_regions_in_steps(
    probabilities: np.ndarray,
    labels: np.ndarray,
    spacing: Sequence[float],
    sure: np.ndarray | None = None,
    shifts: dict[int, float] | None = None,
    most: int = 20,
    radius: float | None = None,
    expected: dict[int, float] | None = None,
) -> Generator[None, None, list[Region]]:
    """Steps of some 10 ms that return the regions, worst first.

    Args:
        probabilities: (classes, A, B, C) uint8 0 ... 255, background first; may be memory-mapped.
        labels: (A, B, C), as they are now.
        spacing: voxel size along A, B, C.
        sure: (A, B, C) bool, voxels that a person has decided, or None.
        shifts: log odds by which a label was made more sensitive (`prosma.sensitivity`).
        most: how many regions at most.
        radius: of a region, in the unit of the spacing; by default it depends on how large the labels are. With the radius
            of an earlier list regions stay where they were, but for those that changed.
        expected: the Dice expected of some labels (`inference.quality`): where it is lower than what the probabilities say of
            themselves, more voxels of the label's regions are likely to be wrong, and they come earlier.
    """
    case = _Case(probabilities, labels, spacing, sure, shifts or {})
    counts = yield from case.count_labels()
    radius = radius or region_radius(counts, labels.shape, spacing)
    cells = _Cells(case, radius)
    yield from cells.fill()
    doubts = yield from case.doubts(expected or {})
    chosen = yield from cells.islands(counts)
    chosen += yield from cells.balls(most)
    regions = []
    for inside, label in chosen:
        index, error = yield from cells.voxels_of(inside, label)
        regions.append(case.region(index, error, label, radius))
        yield
    found = [region for region in regions if region is not None and region.error >= LEAST_ERROR]
    found = [region.doubted(doubts.get(region.label, 1.0)) for region in found]
    return sorted(found, key=lambda region: -region.error)[:most]


def region_radius(counts: np.ndarray, shape: Sequence[int], spacing: Sequence[float]) -> float:
    """A share of the typical label's radius, in the unit of the spacing. `counts`: voxels of each label, 0 included."""
    sides = [(n, s) for n, s in zip(shape, spacing, strict=True) if n > 1] or [(1, 1.0)]
    found = [int(n) for n in counts[1:] if n]
    if found:
        volume = float(np.median(found)) * float(np.prod([s for _, s in sides]))
    else:
        volume = float(np.prod([n * s for n, s in sides])) / 100
    unit_ball = {1: 2.0, 2: np.pi, 3: 4 / 3 * np.pi}[len(sides)]
    return max((volume / unit_ball) ** (1 / len(sides)) * RADIUS_SHARE, LEAST_RADIUS * min(s for _, s in sides))


class _Case:
    """The arrays, looked at slab by slab."""

    def __init__(self, probabilities, labels, spacing, sure, shifts) -> None:
        self.probabilities, self.labels, self.sure = probabilities, labels, sure
        self.spacing = tuple(float(s) for s in spacing)
        self.weights = None
        if any(shifts.values()):
            self.weights = np.exp([shifts.get(number, 0.0) for number in range(len(probabilities))]).astype(np.float32)

    def slabs(self, multiple: int = 1):
        """Slices of the first axis whose length is a multiple of `multiple`, but for the last."""
        plane = max(1, self.labels[:1].size)
        step = max(1, VOXELS_PER_STEP // (plane * multiple)) * multiple
        for start in range(0, self.labels.shape[0], step):
            yield slice(start, start + step)

    def count_labels(self):
        """Steps that return the number of voxels of each label."""
        counts = np.zeros(len(self.probabilities), np.int64)
        for slab in self.slabs():
            counts += np.bincount(self.labels[slab].ravel(), minlength=len(counts))[: len(counts)]
            yield
        return counts

    def doubts(self, expected: dict[int, float]):
        """Steps that return, for each label, how many times as many voxels its expected Dice says are wrong as the
        probabilities do, of whose Dice with their own argmax 1 is missing as much.
        """
        sums = {label: np.zeros(3) for label in expected if 0 < label < len(self.probabilities)}
        for slab in self.slabs() if sums else ():
            planes = self.probabilities[:, slab]
            best = planes.argmax(axis=0)
            for label, total in sums.items():
                mask, share = best == label, planes[label]
                total += [255 * np.count_nonzero(mask), share.sum(dtype=np.int64), share[mask].sum(dtype=np.int64)]
            yield
        found = {}
        for label, (voxels, every, inside) in sums.items():
            wrong = 1 - 2 * inside / (voxels + every) if voxels else 1.0
            ratio = (1 - expected[label]) / max(wrong, 1e-3)
            found[label] = float(min(MOST_DOUBT, max(1 / MOST_DOUBT, ratio)))
        return found

    def error(self, part) -> np.ndarray:
        """The expected error 0 ... 255 of the voxels in a part (an index of the label map)."""
        labels = self.labels[part]
        own = np.zeros(labels.shape, np.uint8 if self.weights is None else np.float32)
        total = np.zeros(labels.shape, np.float32)
        for number in range(len(self.probabilities)):
            share = self.probabilities[number][part]
            if self.weights is not None:
                share = share * self.weights[number]
                total += share
            np.copyto(own, share, where=labels == number)
        if self.weights is not None:
            own = np.rint(255 * own / np.maximum(total, 1e-6)).astype(np.uint8)
        error = 255 - own
        if self.sure is not None:
            error[self.sure[part]] = 0
        return error

    def region(self, index: np.ndarray, error: np.ndarray, island_of: int | None, radius: float) -> Region | None:
        """A region of the voxels at `index` (axes, voxels), whose expected errors are `error`."""
        total = float(error.sum()) / 255
        if not total:
            return None
        centre = tuple(float((along * error).sum() / error.sum()) for along in index)
        label = island_of or self._label_in_question(index)
        return Region(label, centre, index.shape[1], total, island_of is not None, radius, index)

    def _label_in_question(self, index: np.ndarray) -> int:
        """The label whose border it is: whose membership is the least certain in these voxels."""
        doubt = [0.0]
        for plane in self.probabilities[1:]:
            share = plane[tuple(index)].astype(np.float32) / 255
            doubt.append(float((share * (1 - share)).sum()))
        return int(np.argmax(doubt[1:])) + 1 if max(doubt) > 0 else int(self.labels[tuple(index)].max()) or 1


class _Cells:
    """Blocks of voxels with the sum of their expected errors, and what is done on this coarse grid."""

    def __init__(self, case: _Case, radius: float) -> None:
        self.case = case
        self.radius = radius
        pairs = zip(case.labels.shape, case.spacing, strict=True)
        wanted = [min(n, max(1.0, radius / CELLS_PER_RADIUS / s)) for n, s in pairs]
        cells = np.prod([n / size for n, size in zip(case.labels.shape, wanted, strict=True)])
        larger = max(1.0, (cells / MOST_CELLS) ** (1 / 3))
        self.size = tuple(int(min(n, round(size * larger))) for n, size in zip(case.labels.shape, wanted, strict=True))
        self.shape = tuple(-(-n // size) for n, size in zip(case.labels.shape, self.size, strict=True))
        self.error = np.zeros(self.shape, np.float32)
        self.owned: dict[int, np.ndarray] = {}  # voxels of each label that occurs
        self.ball = self._ball()

    def _ball(self) -> list[tuple[int, ...]]:
        """Offsets of the cells whose middle lies within the radius of a cell's middle."""
        edges = [size * s for size, s in zip(self.size, self.case.spacing, strict=True)]
        reach = [min(int(self.radius / edge), n - 1) for edge, n in zip(edges, self.shape, strict=True)]
        offsets = itertools.product(*(range(-n, n + 1) for n in reach))
        far = self.radius**2 * (1 + 1e-9)
        return [o for o in offsets if sum((n * edge) ** 2 for n, edge in zip(o, edges, strict=True)) <= far]

    def fill(self):
        """Steps that sum expected errors and count labels in each cell."""
        for slab in self.case.slabs(self.size[0]):
            rows = slice(slab.start // self.size[0], -(-min(slab.stop, len(self.case.labels)) // self.size[0]))
            error = self.case.error(slab)
            error[error < UNCERTAIN] = 0
            self.error[rows] = self._sums(error)
            yield
            labels = self.case.labels[slab]
            for value in np.flatnonzero(np.bincount(labels.ravel())):
                if value:
                    owned = self.owned.setdefault(int(value), np.zeros(self.shape, np.uint32))
                    owned[rows] = self._sums(labels == value)
                    yield

    def _sums(self, array: np.ndarray) -> np.ndarray:
        for axis, size in enumerate(self.size):
            array = np.add.reduceat(array, range(0, array.shape[axis], size), axis=axis, dtype=np.uint32)
        return array

    def islands(self, counts: np.ndarray):
        """Steps that return (cells, label) of each island, whose errors then no longer count for other regions."""
        import SimpleITK

        found = []
        for value, owned in self.owned.items():
            occupied = SimpleITK.GetImageFromArray((owned > 0).astype(np.uint8))
            parts = SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(occupied, True))
            yield
            voxels = np.bincount(parts.ravel(), weights=owned.ravel()).astype(np.int64)
            voxels[0] = 0
            largest_first = np.argsort(-voxels, kind="stable")[1 : MOST_ISLANDS + 1]
            for part in largest_first:
                if 0 < voxels[part] <= ISLAND_SHARE * counts[value]:
                    found.append((np.argwhere(parts == part).T, value))
                    yield
        for inside, _value in found:
            self.error[tuple(inside)] = 0
        return found

    def balls(self, most: int):
        """Steps that return (cells, None) of balls, that with the greatest expected error first."""
        score = np.zeros(self.shape, np.float32)
        for offset in self.ball:
            self._add_shifted(score, self.error, offset)
            yield
        found: list[tuple[np.ndarray, None]] = []
        while len(found) < most and score.max() >= 255 * LEAST_ERROR:
            centre = np.unravel_index(int(score.argmax()), self.shape)
            inside = np.array(self.ball).T + np.array(centre)[:, None]
            inside = inside[:, ((inside >= 0) & (inside < np.array(self.shape)[:, None])).all(axis=0)]
            inside = inside[:, self.error[tuple(inside)] > 0]
            found.append((inside, None))
            for cell, error in zip(inside.T, self.error[tuple(inside)], strict=True):
                self._forget(score, cell, error)
            self.error[tuple(inside)] = 0
            score[centre] = 0
            yield
        return found

    @staticmethod
    def _add_shifted(target: np.ndarray, source: np.ndarray, offset: Sequence[int]) -> None:
        to = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, target.shape, strict=True))
        of = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, target.shape, strict=True))
        target[to] += source[of]

    def _forget(self, score: np.ndarray, cell: np.ndarray, error: float) -> None:
        """Take a cell's error out of all balls that hold it."""
        around = cell[:, None] - np.array(self.ball).T
        around = around[:, ((around >= 0) & (around < np.array(self.shape)[:, None])).all(axis=0)]
        score[tuple(around)] -= error

    def voxels_of(self, cells: np.ndarray, island_of: int | None):
        """Steps that return index (axes, voxels) and expected errors of the voxels in cells.

        Of an island all of them, else the uncertain ones.
        """
        indices, errors = [], []
        for number, cell in enumerate(cells.T, start=1):
            if number % CELLS_PER_STEP == 0:
                yield
            part = tuple(slice(c * size, (c + 1) * size) for c, size in zip(cell, self.size, strict=True))
            error = self.case.error(part)
            chosen = error >= UNCERTAIN if island_of is None else self.case.labels[part] == island_of
            where = np.argwhere(chosen).T
            indices.append(where + np.array([s.start for s in part])[:, None])
            errors.append(error[tuple(where)])
        return np.concatenate(indices, axis=1), np.concatenate(errors).astype(np.float32)
