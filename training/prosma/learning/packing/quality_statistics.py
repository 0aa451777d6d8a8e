"""What a package keeps to tell how good a result is likely to be (`inference.quality`), made from labelled folders."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...image.constants import MM3_PER_ML
from ...inference.quality import LEAST_ML, LEAST_WIDTH, LabelStatistics, QualityStatistics, features
from ...inference.quality_meter import Sums
from ...inference.segmenter import Segmenter
from ..data.dataset import IGNORED, LabelledFolder, read_case
from .degraded_copies import degraded_copies
from .fit_statistics import spread_out

MOST_CASES = 40  # of the validation cases, evenly spread
FEW_CASES = 10  # validation cases below which some of the training help out,
HELPERS = 8  # so many
LEAST_ROWS = 20  # segments to learn from
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3)
PARTS = 5  # of the cases, in cross-validation
INSIDE = 0.8  # share of the segments that lie in their intervals
DIGITS = 5  # significant ones that the file keeps

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One segment of one version of a case: what its run told (as arguments of `quality.features`), and its true Dice."""

    case: str
    kind: str
    label: int
    sums: Sums
    distances: tuple[float, float]
    removed: float | None
    dice: float


def quality_statistics(segmenter: Segmenter, folder: LabelledFolder, progress: Progress | None = None) -> bytes | None:
    """The content of `quality.json`, from the folder's `val` cases and degraded copies of them, and volumes in `train`.

    None where the package cannot tell whether an image fits, or there are too few cases.
    """
    val, train = spread_out(folder.splits.get("val", []), MOST_CASES), folder.splits.get("train", [])
    rows = measured_rows(
        segmenter, folder, [*val, *(spread_out(train, HELPERS) if len(val) < FEW_CASES else [])], progress
    )
    volumes = training_volumes(segmenter, folder, spread_out(train))
    rows = [row for row in rows if row.label in volumes]
    if len(rows) < LEAST_ROWS or len({row.case for row in rows}) < PARTS:
        return None
    found = fitted(rows, volumes, segmenter.package.sha256)
    return (json.dumps(dataclasses.asdict(found)) + "\n").encode()


def measured_rows(
    segmenter: Segmenter, folder: LabelledFolder, ids: Sequence[str], progress: Progress | None = None
) -> list[Row]:
    """All segments of all versions of these cases; none where the fit is not known."""
    random, rows, model = np.random.default_rng(0), [], segmenter.package.model
    for number, name in enumerate(ids, start=1):
        image, labels = read_case(folder.cases[name], model)
        for kind, version, truth in degraded_copies(image, labels, model, random):
            result = segmenter.segment(version, force=True)
            if result.fit.distances is None:
                return []
            known, removed = truth != IGNORED, result.statistics["removed_share"]
            for value, sums in result.measures.items():
                dice = overlap((result.labels == value) & known, truth == value)
                rows.append(Row(name, kind, value, sums, result.fit.distances, removed, dice))
        if progress is not None:
            progress(number, len(ids), name)
    return rows


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Dice of two masks; 1 for two empty ones."""
    total = np.count_nonzero(one) + np.count_nonzero(other)
    return 2 * np.count_nonzero(one & other) / total if total else 1.0


def training_volumes(
    segmenter: Segmenter, folder: LabelledFolder, ids: Sequence[str]
) -> dict[int, tuple[float, float]]:
    """For each label that is there: median and deviation of the logarithm of its volume, as in `quality.features`."""
    model = segmenter.package.model
    found: dict[int, list[float]] = {}
    for name in ids:
        image, labels = read_case(folder.cases[name], model)
        for label in model["labels"]:
            voxels = np.count_nonzero(labels == label["value"])
            if voxels:
                found.setdefault(label["value"], []).append(
                    np.log(voxels * math.prod(image.spacing) / MM3_PER_ML + LEAST_ML)
                )
    return {value: (float(np.median(logs)), float(np.std(logs))) for value, logs in found.items()}


def fitted(rows: Sequence[Row], volumes: dict[int, tuple[float, float]], weights: str) -> QualityStatistics:
    """Ridge regression of the Dice, with the strength and the intervals that cross-validation over cases gives."""
    values, labels = matrix(rows, volumes), sorted(volumes)
    which = np.array([[row.label == value for value in labels] for row in rows], float)
    dice, part = np.array([row.dice for row in rows]), parts([row.case for row in rows])
    left = {ridge: held_out(np.hstack([values, which]), dice, part, ridge) for ridge in RIDGES}
    ridge = min(RIDGES, key=lambda each: float(np.abs(left[each] - dice).mean()))
    width = float(np.quantile(np.abs(left[ridge] - dice) / (LEAST_WIDTH + 1 - left[ridge]), INSIDE))
    centre, scale, coefficients, intercept = solved(np.hstack([values, which]), dice, ridge)
    size = values.shape[1]
    shifts = coefficients[size:] / scale[size:]
    statistics = [
        LabelStatistics(value, short(volumes[value][0]), short(volumes[value][1]), short(shift))
        for value, shift in zip(labels, shifts, strict=True)
    ]
    return QualityStatistics(
        weights=weights,
        labels=statistics,
        centre=[short(number) for number in centre[:size]],
        scale=[short(number) for number in scale[:size]],
        coefficients=[short(number) for number in coefficients[:size]],
        intercept=short(intercept - float(shifts @ centre[size:])),
        width=short(min(10.0, width)),
    )


def matrix(rows: Sequence[Row], volumes: dict[int, tuple[float, float]]) -> np.ndarray:
    """(rows, FEATURES)."""
    return np.array([features(row.sums, *volumes[row.label], row.distances, row.removed) for row in rows])


def parts(cases: Sequence[str]) -> np.ndarray:
    """For each row the part, 0 ... PARTS - 1, that its case belongs to."""
    order = {case: number % PARTS for number, case in enumerate(dict.fromkeys(cases))}
    return np.array([order[case] for case in cases])


def held_out(values: np.ndarray, dice: np.ndarray, part: np.ndarray, ridge: float) -> np.ndarray:
    """For each row the Dice that the rows of the other parts lead to."""
    found = np.zeros(len(dice))
    for number in range(PARTS):
        left = part == number
        centre, scale, coefficients, intercept = solved(values[~left], dice[~left], ridge)
        found[left] = intercept + (values[left] - centre) / scale @ coefficients
    return np.clip(found, 0, 1)


def solved(values: np.ndarray, dice: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Centre, scale and coefficients (F,), and intercept of a ridge regression."""
    centre, scale = values.mean(axis=0), values.std(axis=0) + 1e-6
    rows = (values - centre) / scale
    gram = rows.T @ rows / len(rows) + ridge * np.eye(rows.shape[1])
    return centre, scale, np.linalg.solve(gram, rows.T @ (dice - dice.mean()) / len(rows)), float(dice.mean())


def short(number: float) -> float:
    """A number with the DIGITS that a file keeps."""
    return float(f"{float(number):.{DIGITS}g}")
