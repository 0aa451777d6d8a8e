"""What a package keeps to tell whether a picture shows anything of what the model segments (`inference.presence`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...image.geometry import Image
from ...inference.pipeline import prepare
from ...inference.presence import FARTHEST, PresenceStatistics
from ...inference.segmenter import Segmenter
from ..data.dataset import IGNORED, LabelledFolder, read_case
from .fit_statistics import spread_out

MOST_CASES = 600  # of a split, evenly spread over it
LEAST_CASES = 30  # training pictures with a structure, and as many without any
COPIES = 1  # of each training picture, with other brightness and noise
RIDGE = 3.0  # times the mean eigenvalue of the Gram matrix over the number of rows
PARTS = 6  # of the cases, in cross-validation
MOST_MARKED = 0.2  # of the pictures without anything: so many keep what was marked
FEW_LOST = 0.01  # of those with a structure may be lost at any rate
STEPS = 20  # of Newton's method

Progress = Callable[[int, int, str], None]


def presence_statistics(segmenter: Segmenter, folder: LabelledFolder, progress: Progress | None = None) -> bytes | None:
    """The content of `presence.npz`, from the folder's `train` split; the threshold hangs on its `val` split too.

    None for models of volumes, and where there are fewer than LEAST_CASES training pictures with or without a structure, or
    no validation pictures.
    """
    train, val = (spread_out(folder.splits.get(name, []), MOST_CASES) for name in ("train", "val"))
    if segmenter.package.dimension != 2 or not val or min(counts_of(segmenter, folder, train)) < LEAST_CASES:
        return None
    random, features, copies, present = np.random.default_rng(0), [], [], []
    for number, name in enumerate([*train, *val], start=1):
        image, labels = read_case(folder.cases[name], segmenter.package.model)
        features.append(features_of(segmenter, image))
        made = (
            [features_of(segmenter, copy_of(image, random))[:1] for _ in range(COPIES)] if number <= len(train) else []
        )
        copies.append(np.concatenate([features[-1], *made]))
        present.append(has_structure(labels))
        if progress is not None:
            progress(number, len(train) + len(val), name)
    return fitted(features, copies, np.array(present), len(train), segmenter.package.sha256).to_bytes()


def counts_of(segmenter: Segmenter, folder: LabelledFolder, ids: list[str]) -> tuple[int, int]:
    """How many of these cases have a structure, and how many have none."""
    found = [has_structure(read_case(folder.cases[name], segmenter.package.model)[1]) for name in ids]
    return sum(found), len(found) - sum(found)


def has_structure(labels: np.ndarray) -> bool:
    return bool(((labels > 0) & (labels != IGNORED)).any())


def features_of(segmenter: Segmenter, image: Image) -> np.ndarray:
    """(versions, D), as a run has them."""
    return segmenter.presence_features(prepare(image, segmenter.package, force=True))


def copy_of(image: Image, random: np.random.Generator) -> Image:
    """The same picture, darker or brighter and with a little noise."""
    array = image.array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    share = ((array - low) / max(1e-6, high - low)) ** random.uniform(0.7, 1.4)
    noisy = share + random.normal(0, random.uniform(0, 0.03), share.shape)
    return replace(image, array=(low + np.clip(noisy, 0, 1) * (high - low)).astype(np.float32))


def fitted(
    features: list[np.ndarray], copies: list[np.ndarray], present: np.ndarray, train: int, weights: str
) -> PresenceStatistics:
    """From features (versions, D) of pictures, the first `train` of which are those to learn from, and of all copies."""
    part = np.arange(train) % PARTS
    odds = np.zeros(len(features))
    for number in range(PARTS):
        learnt = ridge([copies[n] for n in np.flatnonzero(part != number)], present[:train][part != number])
        for n in np.flatnonzero(part == number):
            odds[n] = float(learnt(features[n]).mean())
    whole = ridge(copies[:train], present[:train])
    odds[train:] = [float(whole(each).mean()) for each in features[train:]]
    slope, offset = calibrated(odds, present)
    threshold = float(max(np.quantile(odds[~present], 1 - MOST_MARKED), np.quantile(odds[present], FEW_LOST)))
    return PresenceStatistics(
        weights=weights,
        centre=whole.centre,
        scale=whole.scale,
        coefficients=slope * whole.coefficients,
        intercept=float(slope * whole.intercept + offset),
        threshold=round(float(1 / (1 + np.exp(-(slope * threshold + offset)))), 3),
    )


class Ridge:
    """A linear function of features (rows, D): near 1 with a structure and near -1 without."""

    def __init__(self, rows: np.ndarray, present: np.ndarray) -> None:
        self.centre = rows.mean(axis=0).astype(np.float16).astype(np.float64)
        self.scale = (rows.std(axis=0) + 1e-3).astype(np.float16).astype(np.float64)
        away, size = self._away(rows), rows.shape[1]
        counts = np.where(present, 0.5 / present.mean(), 0.5 / (1 - present.mean()))  # both kinds count the same
        aim = np.where(present, 1.0, -1.0)
        gram = away @ away.T / size + RIDGE * np.diag(1 / counts)
        self.intercept = float(np.average(aim, weights=counts))
        self.coefficients = away.T @ np.linalg.solve(gram, aim - self.intercept) / size

    def _away(self, rows: np.ndarray) -> np.ndarray:
        return np.clip((rows - self.centre) / self.scale, -FARTHEST, FARTHEST)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        return self._away(rows) @ self.coefficients + self.intercept


def ridge(copies: list[np.ndarray], present: np.ndarray) -> Ridge:
    """Learnt from all copies of pictures."""
    counts = [len(each) for each in copies]
    return Ridge(np.concatenate(copies), np.repeat(present, counts))


def calibrated(odds: np.ndarray, present: np.ndarray) -> tuple[float, float]:
    """Slope and offset that make of scores the log odds of what was seen: logistic regression, by Newton's method."""
    columns, found = np.stack([odds, np.ones(len(odds))], axis=1), np.zeros(2)
    for _ in range(STEPS):
        share = 1 / (1 + np.exp(-np.clip(columns @ found, -30, 30)))
        curvature = (columns * (share * (1 - share) + 1e-6)[:, None]).T @ columns + 1e-3 * np.eye(2)
        found = found + np.linalg.solve(curvature, columns.T @ (present - share) - 1e-3 * found)
    return float(found[0]), float(found[1])
