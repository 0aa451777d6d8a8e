"""Where the weights in prosma/refine.py come from: logistic regression on the strokes of the simulated user.

    python Testing/benchmarks/fit_refine.py hippocampus-mr DIR 4 [MODEL DIR BRUSH ...]

Takes training cases alone. After each stroke it is known which of the voxels around really should have changed sides.
Every stroke counts the same, whatever the number of voxels around it; the paths mix plain strokes with refined ones.
Prints the weights with the network's probabilities and without.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable

import numpy as np
import simulated_user as user

from prosma import refine as engine

CASES = 24  # of each data set
STROKES = 12  # of each segment
PENALTY = 1e-3


class Recorder:
    """A method of correcting that notes the evidence around each stroke and the truth."""

    def __init__(self, brush: user.Brush, with_probabilities: bool) -> None:
        self.refining = user.refining(brush, with_probabilities)
        self.with_probabilities = with_probabilities
        self.reach = engine.REACH * brush.radius
        self.features, self.truth, self.weight = [], [], []
        self.count = 0

    def __call__(self, subject, mask, stroke, adds, earlier):
        self.note(subject, mask, stroke, adds, earlier)
        self.count += 1
        method = self.refining if self.count % 2 else user.paint
        return method(subject, mask, stroke, adds, earlier)

    def note(self, subject, mask, stroke, adds, earlier):
        probability = subject.probability if self.with_probabilities else None
        box, scene = engine.surroundings(
            stroke, subject.image, np.asarray(subject.spacing), probability, self.reach, earlier
        )
        place = tuple(slice(*pair) for pair in box)
        own = (mask if adds else ~mask)[place]
        found = engine.evidence(own, stroke[place], scene.fixed | stroke[place], scene, 1 if adds else -1)
        if len(found.features):
            self.features.append(found.features)
            self.truth.append((subject.reference[place] == adds)[found.candidates])
            self.weight.append(np.full(len(found.features), 100 / len(found.features)))


def logistic_regression(features: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weights by Newton's method with a small ridge on the standardised features; the first feature is constant 1."""
    mean, width = features.mean(axis=0), features.std(axis=0)
    mean[0], width[width == 0] = 0, 1
    scaled = (features - mean) / width
    ridge = PENALTY * weight.sum() * np.eye(features.shape[1])
    ridge[0, 0] = 0
    result = np.zeros(features.shape[1])
    for _ in range(15):
        chance = 1 / (1 + np.exp(-np.clip(scaled @ result, -30, 30)))
        slope = scaled.T @ (weight * (truth - chance)) - ridge @ result
        curvature = (scaled * (weight * chance * (1 - chance))[:, None]).T @ scaled + ridge
        result += np.linalg.solve(curvature + 1e-9 * np.eye(len(result)), slope)
    result /= width
    result[0] -= (result[1:] * mean[1:]).sum()
    return result


def fit(recorders: Iterable[Recorder]) -> np.ndarray:
    """The weights of engine.FEATURES from what was recorded in several data sets, which count the same."""
    features, truth, weight = [], [], []
    for recorder in recorders:
        features += recorder.features
        truth += recorder.truth
        weight += [w / len(recorder.weight) for w in recorder.weight]
    return logistic_regression(np.concatenate(features).astype(float), np.concatenate(truth), np.concatenate(weight))


def main(arguments: list[str]) -> int:
    if not arguments or len(arguments) % 3:
        print(__doc__, file=sys.stderr)
        return 2
    recorders: dict[tuple[str, int], list[Recorder]] = {}
    for model, data, radius in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        subjects, brush = list(user.subjects(model, data, "train", CASES)), user.Brush(float(radius))
        for source, with_probabilities in (("network", True), ("image", False)):
            recorder = Recorder(brush, with_probabilities)
            for subject in subjects:
                user.correct(subject, recorder, brush, STROKES)
            recorders.setdefault((source, engine.dimension(subjects[0].mask.shape)), []).append(recorder)
    for kind, recorded in recorders.items():
        print(kind, tuple(fit(recorded).round(3).tolist()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
