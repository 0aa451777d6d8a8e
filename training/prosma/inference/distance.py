"""How far features lie from those of training cases, and along which directions known faults take them.

`Distance` is that of Mahalanobis along the first principal components, plus that of what the components leave. `Faults` are
for copies of the training images with a fault (`learning.packing.faulty_copies`): of each a direction along which these
copies lie apart from the images as they are, by ridge regression between the two, whose solution is Fisher's linear
discriminant with a shrunken covariance. Scores are in standard deviations of those of cases that nothing was made from:
other parts of the training cases (cross-validation) and the validation cases. Needs numpy alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

MOST_COMPONENTS = 11
PARTS = 5  # of the training cases, in cross-validation
LEAST = 1e-6
LEVELS = 127  # that a row's largest weight is divided into: it is kept in 8 bits
KEPT = ("mean", "deviation", "components", "steps", "variance", "numbers")  # arrays of a Distance in a file
RIDGES = (0.1, 0.3, 1.0)  # times the mean eigenvalue of the Gram matrix; the best of them in cross-validation
MARGIN = 1.2  # spreads of faults are so many standard deviations: of several, one is high by chance more often
SEEN = 2.5  # spreads from which on a fault is seen,
MOST_FALSE = 0.02  # of images without any fault may show one
LEAST_COPIES = 10  # cases with copies that have a fault
LEAST_SEEN = 0.5  # and the share of the copies in which it has to be
FARTHEST = 8.0  # standard deviations at which a feature is cut off, so that none decides alone


@dataclass(frozen=True)
class Distance:
    """How far features (D,) lie from those of training cases.

    `mean` and `deviation`: (D,). `components`: (Q, D), orthonormal but for their rounding to 8 bits; `variance`: (Q,), what
    the training cases have along them. `residual`: the mean square, over cases and features, of what the components leave.
    `centre` and `spread`: of the logarithm of the distance of other cases.
    """

    mean: np.ndarray
    deviation: np.ndarray
    components: np.ndarray
    variance: np.ndarray
    residual: float
    centre: float = 0.0
    spread: float = 1.0

    @classmethod
    def of_cases(cls, train: np.ndarray, val: np.ndarray) -> Distance:
        """From features (cases, versions, D) of training and of validation cases."""
        part = np.arange(len(train)) % PARTS
        others = [cls._of(flat(train[part != n]))(flat(train[part == n])) for n in range(PARTS)]
        whole = cls._of(flat(train))
        logarithms = np.log(np.concatenate([*others, whole(flat(val))]))
        return replace(whole, centre=float(np.median(logarithms)), spread=float(logarithms.std()))

    @classmethod
    def _of(cls, train: np.ndarray) -> Distance:
        """That before calibration."""
        mean = in_16_bits(train.mean(axis=0))
        deviation = in_16_bits(train.std(axis=0) + 1e-3 * np.abs(mean).mean() + LEAST)
        normalised = (train - mean) / deviation
        count = min(MOST_COMPONENTS, len(train) // 3)
        components, _ = in_8_bits(np.linalg.svd(normalised, full_matrices=False)[2][:count])
        along = normalised @ components.T
        left = np.square(normalised - along @ components).mean()
        variance = np.maximum(np.square(along).mean(axis=0), LEAST)
        return cls(mean, deviation, components, variance, max(LEAST, float(left)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Of features (cases, D): (cases,), about 2 for a training case."""
        normalised = self.normalised(features)
        along = normalised @ self.components.T
        left = normalised - along @ self.components
        return (along**2 / self.variance).mean(axis=1) + (left**2).mean(axis=1) / self.residual

    def normalised(self, features: np.ndarray) -> np.ndarray:
        """Features (..., D) in standard deviations of the training cases."""
        return (features - self.mean) / self.deviation

    def score(self, features: np.ndarray) -> np.ndarray:
        """(cases, D) -> (cases,): about 0 for a case like those of the training."""
        return (np.log(self(features)) - self.centre) / self.spread

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """For a file: in half precision what needs no more, the components as whole numbers and steps."""
        components, steps = in_8_bits(self.components)
        found = {
            "mean": self.mean.astype(np.float16),
            "deviation": self.deviation.astype(np.float16),
            "components": np.rint(components / steps).astype(np.int8),
            "steps": steps,
            "variance": self.variance.astype(np.float32),
            "numbers": np.array([self.residual, self.centre, self.spread]),
        }
        return {f"{prefix}{name}": array for name, array in found.items()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray]) -> Distance:
        """The opposite of `arrays`, without the prefix; ValueError for what cannot be right."""
        arrays = {name: np.asarray(arrays[name], np.float64) for name in KEPT}
        count, size = arrays["variance"].size, arrays["mean"].size
        shapes = [arrays[name].shape for name in KEPT]
        if shapes != [(size,), (size,), (count, size), (count, 1), (count,), (3,)]:
            raise ValueError("the sizes of its arrays do not fit each other")
        finite = all(np.isfinite(array).all() for array in arrays.values())
        arrays["components"] = arrays["components"] * arrays.pop("steps")
        residual, centre, spread = map(float, arrays.pop("numbers"))
        positive = all((arrays[name] > 0).all() for name in ("deviation", "variance")) and residual > 0 and spread > 0
        if not finite or not positive:
            raise ValueError("it holds numbers that cannot be right")
        return cls(**arrays, residual=residual, centre=centre, spread=spread)


@dataclass(frozen=True)
class Faults:
    """Of each fault in `names` a direction in `weights` (K, D); `offsets` and `spreads` (K,) of images without it."""

    names: tuple[str, ...]
    weights: np.ndarray
    offsets: np.ndarray
    spreads: np.ndarray

    @classmethod
    def of_cases(cls, train: np.ndarray, val: np.ndarray, copies: Mapping[str, Sequence[np.ndarray]]) -> Faults:
        """From normalised features (cases, versions, D) of images as they are, and (rows, D) of each training case's copies.

        A fault that too few copies have, or that cannot be seen (a mirrored image of what is symmetric), is left out.
        """
        enough = {name: rows for name, rows in copies.items() if sum(map(bool, map(len, rows))) >= LEAST_COPIES}
        found = {
            name: max((_direction(train, val, rows, ridge) for ridge in RIDGES), key=lambda each: each.clearness)
            for name, rows in enough.items()
        }
        kept = {name: each for name, each in found.items() if each.seen >= LEAST_SEEN}
        if not kept:
            return cls((), np.zeros((0, train.shape[-1])), np.zeros(0), np.zeros(0))
        directions = list(kept.values())
        without = np.array([(each.without - each.centre) / each.spread for each in directions])
        margin = max(1.0, float(np.quantile(without.max(axis=0), 1 - MOST_FALSE)) / SEEN)
        weights, offsets, spreads = (
            np.array([getattr(each, name) for each in directions]) for name in ("weights", "offset", "spread")
        )
        return cls(tuple(kept), weights, offsets, spreads * margin)

    def __call__(self, normalised: np.ndarray) -> np.ndarray:
        """Of normalised features (cases, D): (cases, K), about 0 for images without the fault."""
        return (cut_off(normalised) @ self.weights.T - self.offsets) / self.spreads

    def arrays(self) -> dict[str, np.ndarray]:
        """For a file; the weights as whole numbers and steps."""
        _, steps = in_8_bits(self.weights)
        return {
            "fault_names": np.array(self.names),
            "fault_weights": np.rint(self.weights / steps).astype(np.int8),
            "fault_steps": steps,
            "fault_numbers": np.stack([self.offsets, self.spreads]),
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], size: int) -> Faults:
        """The opposite of `arrays`, for so many features; ValueError for what cannot be right."""
        names = tuple(str(name) for name in arrays["fault_names"])
        weights = arrays["fault_weights"].astype(np.float64) * arrays["fault_steps"]
        numbers = arrays["fault_numbers"].astype(np.float64)
        if weights.shape != (len(names), size) or numbers.shape != (2, len(names)):
            raise ValueError("the sizes of its arrays do not fit each other")
        if not np.isfinite(weights).all() or not np.isfinite(numbers).all() or (numbers[1] <= 0).any():
            raise ValueError("it holds numbers that cannot be right")
        return cls(names, weights, *numbers)


@dataclass(frozen=True)
class _Direction:
    """That of one fault. `without` and `having`: positions along it of images without the fault, and of copies that have it,
    by weights that were made from other cases; `origin`: the position that counts as 0.
    """

    weights: np.ndarray
    origin: float
    without: np.ndarray
    having: np.ndarray

    @property
    def centre(self) -> float:
        return float(np.median(self.without))

    @property
    def spread(self) -> float:
        return float(MARGIN * self.without.std())

    @property
    def offset(self) -> float:
        return self.origin + self.centre

    @property
    def seen(self) -> float:
        """The share of the copies that lie farther off than SEEN spreads."""
        return float(np.mean(self.having - self.centre > SEEN * self.spread))

    @property
    def clearness(self) -> tuple[float, float]:
        """The more, the better: `seen`, and how many spreads the copies lie off."""
        return self.seen, float(np.median(self.having) - self.centre) / self.spread


def _direction(train: np.ndarray, val: np.ndarray, copies: Sequence[np.ndarray], ridge: float) -> _Direction:
    """From normalised features as in `Faults.of_cases`."""
    part = np.arange(len(train)) % PARTS
    weights, middle = discriminant(flat(train), np.concatenate(copies), ridge)
    weights = in_8_bits(weights[None])[0][0]
    without, having = [(cut_off(flat(val)) - middle) @ weights], []
    for n in range(PARTS):
        rest = [copy for copy, its in zip(copies, part, strict=True) if its != n]
        left = [copy for copy, its in zip(copies, part, strict=True) if its == n]
        others, centre = discriminant(flat(train[part != n]), np.concatenate(rest), ridge)
        without.append((cut_off(flat(train[part == n])) - centre) @ others)
        having.append((cut_off(np.concatenate(left)) - centre) @ others)
    return _Direction(weights, float(middle @ weights), np.concatenate(without), np.concatenate(having))


def discriminant(one: np.ndarray, other: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (D,) and middle (D,): (x - middle) @ weights is about -1 for rows (N, D) like `one`, 1 for those like `other`.

    Ridge regression in its dual form, since there are more features than rows; both sides count the same.
    """
    one, other = cut_off(one), cut_off(other)
    middle = (one.mean(axis=0) + other.mean(axis=0)) / 2
    root = np.sqrt(np.r_[np.full(len(one), 0.5 / len(one)), np.full(len(other), 0.5 / len(other))])
    rows = (np.concatenate([one, other]) - middle) * root[:, None]
    gram = rows @ rows.T
    gram[np.diag_indices(len(gram))] += ridge * np.trace(gram) / len(gram)
    wanted = np.r_[-np.ones(len(one)), np.ones(len(other))] * root
    return rows.T @ np.linalg.solve(gram, wanted), middle


def in_16_bits(numbers: np.ndarray) -> np.ndarray:
    """Numbers as half precision keeps them."""
    return numbers.astype(np.float16).astype(np.float64)


def cut_off(normalised: np.ndarray) -> np.ndarray:
    """Normalised features, none farther than FARTHEST."""
    return np.clip(normalised, -FARTHEST, FARTHEST)


def flat(features: np.ndarray) -> np.ndarray:
    """(cases, versions, D) -> (cases x versions, D)."""
    return features.reshape(-1, features.shape[-1])


def in_8_bits(components: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (Q, D) as whole multiples, -127 to 127, of a step each; and the steps (Q, 1)."""
    steps = (np.abs(components).max(axis=1, keepdims=True) / LEVELS).astype(np.float32)
    return np.rint(components / steps) * steps.astype(np.float64), steps
