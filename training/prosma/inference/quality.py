"""Expected quality: the Dice that a segment of a result is likely to have, with an interval, before anybody has looked.

It is a linear function of what the run itself tells (`features`): how sure the network is of the segment's voxels
(`quality_meter`), its volume against those of the training cases, its surface, how much of it is cut off at the image's end,
how far the image lies from those of the training (`fit`), and what the gates removed. The weights come from ridge regression
over validation cases and degraded copies of them (`learning.packing.quality_statistics`); a package keeps them in
`quality.json`. Needs numpy alone.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from ..contracts import Items, Mismatch, Numbers, Text, check
from ..files import read_regular
from ..image.tags import quality_tags
from .fit import Fit
from .quality_meter import Sums

LARGEST_FILE = 1 << 16  # bytes
FEATURES = 14
LEAST_WIDTH = 0.03  # of intervals, where the expected Dice is 1; they grow as it falls
LEAST_ML = 1e-3  # added to volumes before logarithms
FARTHEST = 6.0  # scores of the fit beyond which more makes no difference

Weights = Annotated[list[Annotated[float, Numbers()]], Items(FEATURES, FEATURES)]


@dataclass(frozen=True)
class Expected:
    """The expected Dice of a segment; four of five lie between `low` and `high`."""

    mean: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For reports as JSON."""
        return {"mean": round(self.mean, 3), "low": round(self.low, 3), "high": round(self.high, 3)}


@dataclass(frozen=True)
class LabelStatistics:
    """Of one label in the training cases: `median` and `deviation` of the logarithm of its volume in ml, and what
    its Dice differs from that of the others by.
    """

    OTHERS: ClassVar[Any] = None

    value: Annotated[int, Numbers(1, 65535)]
    median: Annotated[float, Numbers()]
    deviation: Annotated[float, Numbers()]
    offset: Annotated[float, Numbers()]


@dataclass(frozen=True)
class QualityStatistics:
    """The content of `quality.json`. `weights`: sha256 of the model's weights. A feature counts as
    (feature - centre) / scale x coefficient; `intercept` is added. `width`: of intervals, in units of
    LEAST_WIDTH + 1 - mean.
    """

    OTHERS: ClassVar[Any] = None

    weights: Annotated[str, Text(64)]
    labels: Annotated[list[LabelStatistics], Items(1)]
    centre: Weights
    scale: Weights
    coefficients: Weights
    intercept: Annotated[float, Numbers()]
    width: Annotated[float, Numbers(0, 10)]

    @classmethod
    def of_package(cls, path: Path, weights: str) -> QualityStatistics | None:
        """Those in a package's file for the weights with this sha256; None where there are none that can be used."""
        try:
            found: QualityStatistics = check(cls, json.loads(read_regular(path, LARGEST_FILE)))
        except (OSError, ValueError, RecursionError, Mismatch):
            return None
        return found if found.weights == weights and min(found.scale) > 0 else None

    def of_segments(self, measures: dict[int, Sums], fit: Fit, removed: float | None) -> dict[int, Expected]:
        """By the value of each label for which something can be told."""
        found = {value: self.expected(value, sums, fit, removed) for value, sums in measures.items()}
        return {value: expected for value, expected in found.items() if expected is not None}

    def expected(self, value: int, sums: Sums, fit: Fit, removed: float | None) -> Expected | None:
        """Of the segment of the label with this value; None where nothing can be told."""
        label = next((label for label in self.labels if label.value == value), None)
        if label is None or fit.distances is None:
            return None
        found = features(sums, label.median, label.deviation, fit.distances, removed)
        mean = self.intercept + label.offset
        mean += float(np.dot((found - self.centre) / self.scale, self.coefficients))
        mean = min(1.0, max(0.0, mean))
        half = self.width * (LEAST_WIDTH + 1 - mean)
        return Expected(mean, max(0.0, mean - half), min(1.0, mean + half))


def with_expected(segments: list[dict], expected: dict[int, Expected]) -> list[dict]:
    """Entries about segments (with `value`) and with `expected_dice`, None where nothing can be told."""
    told = {value: each.as_dict() for value, each in expected.items()}
    return [{**segment, "expected_dice": told.get(segment["value"])} for segment in segments]


def with_tags(described: list[dict], expected: dict[int, Expected]) -> list[dict]:
    """Labels as they are described, with the `tags` that their segments get in a file."""
    texts = {value: quality_tags(each.as_dict()) for value, each in expected.items()}
    return [{**label, "tags": texts.get(label["value"], {})} for label in described]


def features(
    sums: Sums, median: float, deviation: float, distances: tuple[float, float], removed: float | None
) -> np.ndarray:
    """What an expected Dice is made from, (FEATURES,).

    Args:
        sums: of the segment, by a QualityMeter.
        median, deviation: of the logarithm of the label's volumes in the training cases.
        distances: of the image from those of the training, see `Fit`.
        removed: share of the features on the skips that the gates removed.
    """
    size = max(sums.voxels, 1)
    edge = size ** (2 / 3)
    agreement = 2 * sums.inside / max(1e-3, sums.all + sums.voxels)  # Dice of the probabilities and their argmax
    unusual = min(2.0, max(-4.0, math.log(sums.voxels * sums.voxel_ml + LEAST_ML) - median))
    joint, fault = (min(FARTHEST, max(-2.0, distance)) for distance in distances)
    border = sums.border / max(edge, sums.surface + sums.border)
    return np.array(
        [
            agreement,
            agreement**2,
            sums.inside / size,
            math.log1p(sums.unsure / edge),
            unusual,
            abs(unusual),
            max(0.0, -unusual - 2 * deviation),
            float(sums.voxels == 0),
            min(4.0, max(-2.0, math.log((sums.surface + sums.border + 1e-3) / edge))),
            joint,
            max(0.0, joint) ** 2,
            fault,
            removed or 0.0,
            border,
        ]
    )
