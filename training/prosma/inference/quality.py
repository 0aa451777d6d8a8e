"""Expected quality: the Dice that a segment of a result is likely to have, with an interval, before anybody has looked.

Its log odds are a linear function of what the scores of the run tell (`features`): above all the Dice of the probabilities
with their own argmax, and of the segment's volume against those of the training cases. The weights come from ridge regression
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
from .quality_meter import Sums

LARGEST_FILE = 1 << 16  # bytes
FEATURES = 11
LEAST_ML = 1e-3  # added to volumes before logarithms
FARTHEST = 3.0  # scales from the centre, beyond which a feature makes no more difference
LEAST_ODDS = 0.005  # shares are kept so far from 0 and 1 before logarithms of their odds
UNSURE_HALF = 0.3  # of intervals about an empty segment, which is right or wrong altogether
FEW = 0.01  # of a segment's voxels, added to counts before logarithms

Weights = Annotated[list[Annotated[float, Numbers()]], Items(FEATURES, FEATURES)]


@dataclass(frozen=True)
class Expected:
    """The expected Dice of a segment; four of five lie between `low` and `high`."""

    mean: float
    low: float
    high: float

    def if_present(self, presence: float, empty: bool) -> Expected:
        """The same where the structure is there only so likely: where it is not, an empty segment is right."""
        if empty:
            return Expected(
                1 - presence, *(min(1.0, max(0.0, 1 - presence + step)) for step in (-UNSURE_HALF, UNSURE_HALF))
            )
        return Expected(presence * self.mean, presence * self.low, self.high)

    def as_dict(self) -> dict[str, float]:
        """For reports as JSON."""
        return {"mean": round(self.mean, 3), "low": round(self.low, 3), "high": round(self.high, 3)}


@dataclass(frozen=True)
class LabelStatistics:
    """Of one label in the training cases: `median` and `deviation` of the logarithm of its volume in ml, and what
    the log odds of its Dice differ from those of the others by.
    """

    OTHERS: ClassVar[Any] = None

    value: Annotated[int, Numbers(1, 65535)]
    median: Annotated[float, Numbers()]
    deviation: Annotated[float, Numbers()]
    offset: Annotated[float, Numbers()]


@dataclass(frozen=True)
class QualityStatistics:
    """The content of `quality.json`. `weights`: sha256 of the model's weights. A feature adds
    (feature - centre) / scale x coefficient to the log odds `intercept`. `width`: of intervals to either side, in log odds.
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

    def of_segments(self, measures: dict[int, Sums]) -> dict[int, Expected]:
        """By the value of each label for which something can be told."""
        found = {value: self.expected(value, sums) for value, sums in measures.items()}
        return {value: expected for value, expected in found.items() if expected is not None}

    def expected(self, value: int, sums: Sums) -> Expected | None:
        """Of the segment of the label with this value; None where nothing can be told."""
        label = next((label for label in self.labels if label.value == value), None)
        if label is None:
            return None
        found = features(sums, label.median, label.deviation)
        away = np.clip((found - self.centre) / self.scale, -FARTHEST, FARTHEST)
        odds = self.intercept + label.offset + float(np.dot(away, self.coefficients))
        return Expected(*(share_of(odds + step) for step in (0.0, -self.width, self.width)))


def with_expected(segments: list[dict], expected: dict[int, Expected], presence: float | None) -> list[dict]:
    """Entries about segments (with `value`) and with `expected_dice` and `presence`, None where nothing can be told."""
    told = {value: each.as_dict() for value, each in expected.items()}
    there = None if presence is None else round(presence, 3)
    return [{**segment, "expected_dice": told.get(segment["value"]), "presence": there} for segment in segments]


def with_tags(described: list[dict], expected: dict[int, Expected]) -> list[dict]:
    """Labels as they are described, with the `tags` that their segments get in a file."""
    texts = {value: quality_tags(each.as_dict()) for value, each in expected.items()}
    return [{**label, "tags": texts.get(label["value"], {})} for label in described]


def features(sums: Sums, median: float, deviation: float) -> np.ndarray:
    """What an expected Dice is made from, (FEATURES,).

    Args:
        sums: of the segment, by a QualityMeter.
        median, deviation: of the logarithm of the label's volumes in the training cases.
    """
    size = max(sums.voxels, 1)
    edge = size ** (2 / 3)
    agreement = 2 * sums.inside / max(1e-3, sums.all + sums.voxels)  # Dice of the probabilities and their argmax
    unusual = min(2.0, max(-4.0, math.log(sums.voxels * sums.voxel_ml + LEAST_ML) - median))
    return np.array(
        [
            log_odds(agreement),
            log_odds(sums.inside / size),
            log_odds(sums.greatest),
            log_ratio(sums.likely, sums.sure, size),
            log_ratio(sums.sure + sums.unsure, sums.likely, size),
            math.log1p((sums.all - sums.inside) / size),
            math.log1p(sums.unsure / edge),
            unusual,
            max(0.0, -unusual - 2 * deviation),
            float(sums.voxels == 0),
            min(4.0, max(-2.0, math.log((sums.surface + sums.border + 1e-3) / edge))),
        ]
    )


def log_odds(share: float, least: float = LEAST_ODDS) -> float:
    """Of a share of 0 to 1, which is kept so far from both."""
    share = min(1 - least, max(least, share))
    return math.log(share / (1 - share))


def share_of(odds: float) -> float:
    """The opposite of `log_odds`."""
    return 1 / (1 + math.exp(-min(50.0, max(-50.0, odds))))


def log_ratio(one: int, other: int, size: int) -> float:
    """The logarithm of the ratio of two counts; where both are small against `size` it says nothing."""
    return math.log((one + 1 + FEW * size) / (other + 1 + FEW * size))
