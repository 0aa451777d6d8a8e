"""What a package keeps to tell how good a result is likely to be (`inference.quality`), made from labelled folders."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...image.constants import MM3_PER_ML
from ...inference.quality import FARTHEST, LEAST_ML, LabelStatistics, QualityStatistics, features, log_odds
from ...inference.quality_meter import Sums
from ...inference.segmenter import Segmenter
from ..data.dataset import IGNORED, LabelledFolder, read_case
from .degraded_copies import CLEAN, degraded_copies
from .fit_statistics import spread_out
from .quality_prior import SCALE, SLOPES

MOST_CASES = 40  # of the validation cases, evenly spread
FEW_CASES = 10  # validation cases below which some of the training help out,
HELPERS = 8  # so many
ROUNDS = 2  # of degraded copies, each of another severity
LEAST_ROWS = 20  # segments to learn from
PRIOR_CASES = 100  # as whose worth the slopes of the bundled models count against those of a package's own cases,
LABEL_CASES = 5  # and no difference between labels against theirs
LEAST_DICE = 0.02  # true ones are kept so far from 0 and 1 before the logarithm of their odds
PARTS = 5  # of the cases, in cross-validation
INSIDE = 0.8  # share of the segments that lie in their intervals
DIGITS = 5  # significant ones that the file keeps

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Row:
    """One segment of one version of a case: what its run told (as argument of `quality.features`), and its true Dice.

    Of models that tell the `presence` of a structure: this, whether the result is `empty`, and whether the structure is
    `absent`.
    """

    case: str
    kind: str
    label: int
    sums: Sums
    dice: float
    presence: float | None = None
    empty: bool = False
    absent: bool = False


def quality_statistics(segmenter: Segmenter, folder: LabelledFolder, progress: Progress | None = None) -> bytes | None:
    """The content of `quality.json`, from the folder's `val` cases and degraded copies of them, and volumes in `train`.

    None where there are too few cases.
    """
    return statistics_from(validation_rows(segmenter, folder, progress), segmenter, folder)


def statistics_from(rows: Sequence[Row], segmenter: Segmenter, folder: LabelledFolder) -> bytes | None:
    """The same from rows that were measured before."""
    train = folder.splits.get("train", [])
    volumes = training_volumes(segmenter, folder, spread_out(train))
    rows = [row for row in rows if row.label in volumes and not (row.absent or (row.presence and row.empty))]
    if len(rows) < LEAST_ROWS or len({row.case for row in rows}) < PARTS:
        return None
    found = fitted(rows, volumes, segmenter.package.sha256)
    return (json.dumps(dataclasses.asdict(found)) + "\n").encode()


def validation_rows(segmenter: Segmenter, folder: LabelledFolder, progress: Progress | None = None) -> list[Row]:
    """Of the folder's `val` cases, where these are few of some `train` cases too, and of degraded copies of them."""
    val, train = spread_out(folder.splits.get("val", []), MOST_CASES), folder.splits.get("train", [])
    ids = [*val, *(spread_out(train, HELPERS) if len(val) < FEW_CASES else [])]
    return measured_rows(segmenter, folder, ids, progress, ROUNDS)


def measured_rows(
    segmenter: Segmenter,
    folder: LabelledFolder,
    ids: Sequence[str],
    progress: Progress | None = None,
    rounds: int = 1,
) -> list[Row]:
    """All segments of these cases and of so many rounds of degraded copies of them.

    Without those that are neither there nor marked, as some are in a part of an image: they have no Dice. Of models that
    tell the presence of a structure they count: an empty segment is right.
    """
    random, rows, model = np.random.default_rng(0), [], segmenter.package.model
    for number, name in enumerate(ids, start=1):
        image, labels = read_case(folder.cases[name], model)
        versions = itertools.chain(*(degraded_copies(image, labels, model, random) for _ in range(rounds)))
        for place, (kind, version, truth) in enumerate(versions):
            if kind == CLEAN and place:
                continue
            result = segmenter.segment(version, force=model["dimension"] == 3, refuse_unfit=False)
            known, there = truth != IGNORED, bool(((truth > 0) & (truth != IGNORED)).any())
            empty, absent = not result.labels.any(), not there
            for value, sums in result.measures.items():
                marked, true = (result.labels == value) & known, truth == value
                if result.presence is None and not (marked.any() or true.any()):
                    continue
                dice = overlap(marked, true)
                known_presence = (result.presence, empty, absent) if result.presence is not None else ()
                rows.append(Row(name, kind, value, sums, dice, *known_presence))
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
    """Regression of the log odds of the Dice, with the intervals that cross-validation over cases gives."""
    values, odds, labels = matrix(rows, volumes), true_odds(rows), sorted(volumes)
    which = np.array([[row.label == value for value in labels] for row in rows])
    cases, counts = numbered([row.case for row in rows]), clean_counts_twice(rows)
    left = np.zeros(len(rows))
    for part in range(PARTS):
        out = cases % PARTS == part
        left[out] = solved(values[~out], which[~out], odds[~out], cases[~out], counts[~out])(values[out], which[out])
    whole = solved(values, which, odds, cases, counts)
    width = float(np.quantile(np.abs(left - odds), INSIDE))
    statistics = [
        LabelStatistics(value, short(volumes[value][0]), short(volumes[value][1]), short(offset))
        for value, offset in zip(labels, whole.offsets, strict=True)
    ]
    return QualityStatistics(
        weights=weights,
        labels=statistics,
        centre=[short(number) for number in whole.centre],
        scale=list(SCALE),
        coefficients=[short(number) for number in whole.slopes],
        intercept=short(whole.intercept),
        width=short(min(10.0, width)),
    )


@dataclass(frozen=True)
class Solution:
    """Of a regression: `offsets` of the labels; called with features (rows, FEATURES) and the labels of rows (rows, L)."""

    centre: np.ndarray
    slopes: np.ndarray
    intercept: float
    offsets: np.ndarray

    def __call__(self, values: np.ndarray, which: np.ndarray) -> np.ndarray:
        found = self.intercept + scaled(values, self.centre) @ self.slopes + which @ self.offsets
        limit = log_odds(0.0, LEAST_DICE)
        return np.clip(found, limit, -limit)


def solved(values: np.ndarray, which: np.ndarray, odds: np.ndarray, cases: np.ndarray, counts: np.ndarray) -> Solution:
    """Ridge regression towards the slopes of the bundled models: few cases change them but little.

    `counts`: what each row counts.
    """
    count, weights = len(np.unique(cases)), counts / counts.sum()
    centre, middle = weights @ values, float(weights @ odds)
    rows = scaled(values, centre)
    rest = odds - middle - rows @ np.array(SLOPES)
    gram = (rows * weights[:, None]).T @ rows + PRIOR_CASES / count * np.eye(rows.shape[1])
    slopes = np.array(SLOPES) + np.linalg.solve(gram, (rows * weights[:, None]).T @ rest)
    rest = odds - middle - rows @ slopes
    offsets = np.array([float(np.average(rest[label], weights=counts[label])) for label in which.T])
    offsets = offsets * count / (count + LABEL_CASES) if len(offsets) > 1 else np.zeros(1)
    return Solution(centre, slopes, middle, offsets)


def scaled(values: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Features as `QualityStatistics` counts them."""
    return np.clip((values - centre) / np.array(SCALE), -FARTHEST, FARTHEST)


def matrix(rows: Sequence[Row], volumes: dict[int, tuple[float, float]]) -> np.ndarray:
    """(rows, FEATURES)."""
    return np.array([features(row.sums, *volumes[row.label]) for row in rows])


def true_odds(rows: Sequence[Row]) -> np.ndarray:
    """The log odds of the true Dice, (rows,)."""
    return np.array([log_odds(row.dice, LEAST_DICE) for row in rows])


def clean_counts_twice(rows: Sequence[Row]) -> np.ndarray:
    """What rows count, (rows,): images as they are have no second copy."""
    return np.array([2.0 if row.kind == CLEAN else 1.0 for row in rows])


def numbered(cases: Sequence[str]) -> np.ndarray:
    """For each row the number of its case, in the order in which they come."""
    order = {case: number for number, case in enumerate(dict.fromkeys(cases))}
    return np.array([order[case] for case in cases])


def short(number: float) -> float:
    """A number with the DIGITS that a file keeps."""
    return float(f"{float(number):.{DIGITS}g}")
