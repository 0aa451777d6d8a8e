"""Whether an image fits a model: how far its features lie from those of the images that the model was trained on.

Of the training cases' features (`encoder_features`) a package keeps (`fit.npz`) the mean, the deviation, the first principal
components, and directions in which known faults take them (`distance`). The distance of an image is the mean square of its
components, each in standard deviations (Mahalanobis), plus that of what the components leave (residual), each with mean 1
over the training cases; its logarithm gives the joint score. Where a model leaves images their scale, the features of the
image itself have a score of their own, and so has each fault. The greatest one counts, but it takes the joint one to say that
the model does not fit.

Needs numpy alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import EngineError
from ..files import check_unfolding, read_regular
from ..image.modality import declared_otherwise
from .distance import KEPT, Distance, Faults

Verdict = Literal["fits", "unusual", "unfit", "unknown"]

UNUSUAL = 2.5  # a score from which on an image is unusual,
UNFIT = 4.0  # and from which on the model does not fit
LEAST_CASES = 10  # to train on; of fewer no components can be made
LARGEST_FILE, LARGEST_CONTENT = 1 << 20, 1 << 23  # bytes
HOUNSFIELD = -200.0  # below which only CT has values: air is -1000
OTHER_NETWORK = "The statistics of the model's package belong to another network."
REMEDY = "Choose a model for this kind of image, or place the ROI around what the model segments."
OTHER_KIND = "Choose a model for this kind of image."
NOISE, CLIPPED, INVERTED, TURNED, BESIDE = "noise", "clipped", "inverted", "turned", "beside"
FAULTS = {  # what to say of those that names in `FitStatistics.faults` begin with
    NOISE: "It looks much noisier than they are.",
    CLIPPED: "Its dark or bright values look cut off.",
    INVERTED: "Its contrast looks inverted.",
    TURNED: "It looks mirrored or turned: check the orientation that its file tells.",
    BESIDE: "It looks as if the model's structures lay elsewhere: check where the ROI is.",
}


@dataclass(frozen=True)
class Fit:
    """A verdict, the score that it comes from (None where there is none), and reasons, each one sentence.

    `other_kind`: the values alone, or its DICOM header, say that it is another kind of image. `distances`: the joint score,
    and that of the clearest fault.
    """

    verdict: Verdict
    score: float | None = None
    reasons: tuple[str, ...] = ()
    other_kind: bool = False
    distances: tuple[float, float] | None = None

    def with_structure_found(self) -> Fit:
        """The verdict where a finder saw the structure: what only looks different is unusual, other values are not."""
        if self.verdict != "unfit" or self.other_kind:
            return self
        found = "The finder saw the structure all the same: check the result."
        return replace(self, verdict="unusual", reasons=(*self.reasons, found))

    def with_declared(self, model: dict[str, Any], modalities: Sequence[str]) -> Fit:
        """The verdict where an image's headers declare these kinds (`image.modality`): another than the model's is unfit."""
        kind = declared_otherwise(model["modality"], modalities)
        if kind is None:
            return self
        said = f"Its DICOM header says that this is {kind}; the model '{model['name']}' was trained on {model['modality']}."
        return replace(self, verdict="unfit", reasons=(said, *self.warnings), other_kind=True)

    @staticmethod
    def without_structure(why: str) -> Callable[[Fit], Fit]:
        """What a fit becomes where a finder did not see the structure, for this reason: unusual at least."""

        def unusual(fit: Fit) -> Fit:
            return replace(fit, verdict="unfit" if fit.verdict == "unfit" else "unusual", reasons=(why, *fit.reasons))

        return unusual

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person has to be told."""
        return self.reasons if self.verdict in ("unusual", "unfit") else ()

    def as_dict(self) -> dict[str, Any]:
        """For reports as JSON."""
        score = None if self.score is None else round(self.score, 2)
        return {"verdict": self.verdict, "score": score, "reasons": list(self.reasons)}


def worst(fits: Sequence[Fit]) -> Fit:
    """The one of several parts' fits that a person has to know of."""
    order = ("unknown", "fits", "unusual", "unfit")
    return max(fits, key=lambda fit: (order.index(fit.verdict), fit.score or 0.0))


class DoesNotFit(EngineError):
    """An image that shows something else than the model was trained on; `fit` is the verdict."""

    def __init__(self, fit: Fit, remedy: str = "") -> None:
        super().__init__("does_not_fit", " ".join(fit.reasons), remedy or (OTHER_KIND if fit.other_kind else REMEDY))
        self.fit = fit


@dataclass(frozen=True)
class FitStatistics:
    """What a package keeps of its training cases' features.

    `weights`: sha256 of the weights that made them. `size`: of the part in an image's middle that was looked at. `joint`: of
    all features. `image`: of those of the image itself, for models whose intensities keep their scale; among the many others
    they would hardly count. `faults`: the directions of known faults in the normalised joint features.
    """

    weights: str
    size: tuple[int, ...]
    joint: Distance
    image: Distance | None = None
    faults: Faults | None = None

    @classmethod
    def of_cases(
        cls,
        train: np.ndarray,
        val: np.ndarray,
        weights: str,
        size: Sequence[int],
        image_features: int = 0,
        copies: Mapping[str, Sequence[np.ndarray]] | None = None,
    ) -> FitStatistics:
        """From features (cases, versions, D) of training and of validation cases; ValueError for too few to train on.

        Versions are the same image whole and in boxes. `image_features` of the features, the last ones, are those of the
        image itself; 0 for models that bring each image to a scale of its own. `copies`: for each fault, features (rows, D)
        of each training case's copies that have it.
        """
        if len(train) < LEAST_CASES:
            raise ValueError(f"There are {len(train)} training cases; it takes at least {LEAST_CASES}.")
        last = slice(-image_features, None)
        own = Distance.of_cases(train[..., last], val[..., last]) if image_features else None
        joint, faults = Distance.of_cases(train, val), None
        if copies:
            normalised = {name: [joint.normalised(copy) for copy in each] for name, each in copies.items()}
            faults = Faults.of_cases(joint.normalised(train), joint.normalised(val), normalised)
        return cls(weights, tuple(size), joint, own, faults)

    def score(self, features: np.ndarray) -> np.ndarray:
        """(cases, D) -> (cases,): about 0 for a case like those of the training, and above UNUSUAL for few of them.

        A fault makes an image unusual, but no farther off than that.
        """
        return self.scores(features)[0]

    def scores(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(cases, D) -> `score` (cases,), the joint distance's alone (cases,), and `fault_scores` (cases, K)."""
        joint, faults = self.joint.score(features), self.fault_scores(features)
        every = [joint, *np.minimum(faults, UNUSUAL).T]
        if self.image is not None:
            every.append(self.image.score(features[:, -self.image.mean.size :]))
        return np.max(every, axis=0), joint, faults

    def fault_scores(self, features: np.ndarray) -> np.ndarray:
        """(cases, D) -> (cases, K) of the faults."""
        if self.faults is None:
            return np.zeros((len(features), 0))
        return self.faults(self.joint.normalised(features))

    def fault_of(self, features: np.ndarray) -> str | None:
        """The fault that features (D,) show most clearly; None where they show none."""
        scores = self.fault_scores(features[None])[0]
        if self.faults is None or not (scores >= UNUSUAL).any():
            return None
        return self.faults.names[int(scores.argmax())]

    def to_bytes(self) -> bytes:
        """As the content of `fit.npz`."""
        stream = io.BytesIO()
        arrays = {"weights": np.array(self.weights), "size": np.array(self.size), **self.joint.arrays("joint_")}
        if self.image is not None:
            arrays |= self.image.arrays("image_")
        if self.faults is not None:
            arrays |= self.faults.arrays()
        written: Any = np.savez_compressed
        written(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> FitStatistics:
        """The opposite of `to_bytes`; ValueError for anything else."""
        try:
            check_unfolding(content, LARGEST_CONTENT)
            with np.load(io.BytesIO(content), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            weights, size = str(arrays["weights"]), tuple(max(1, int(n)) for n in arrays["size"])
            joint = {name: arrays[f"joint_{name}"] for name in KEPT}
            image = {name: arrays[f"image_{name}"] for name in KEPT} if "image_mean" in arrays else None
            faults = Faults.of_arrays(arrays, joint["mean"].size) if "fault_names" in arrays else None
        except ValueError:
            raise
        except Exception as error:  # a damaged archive fails in many ways
            raise ValueError(f"it is no such file ({error})") from error
        own = None if image is None else Distance.of_arrays(image)
        return cls(weights, size, Distance.of_arrays(joint), own, faults)

    @classmethod
    def of_package(cls, path: Path, weights: str) -> FitStatistics | str:
        """Those in a package's file for the weights with this sha256; else the reason why there are none, a clause."""
        try:
            found = cls.from_bytes(read_regular(path, LARGEST_FILE))
        except FileNotFoundError:
            return "the model's package has no statistics of its training images"
        except (OSError, ValueError) as error:
            return f"{path.name} in the model's package cannot be used: {error}"
        return found if found.weights == weights else f"{path.name} in the model's package belongs to other weights"


def keeps_scale(intensity: dict[str, Any]) -> bool:
    """Whether a model's intensity rule leaves differences of brightness between images as they are."""
    return intensity["rule"] in ("ct", "range")


def judged(statistics: FitStatistics, features: np.ndarray, model: dict[str, Any], lowest: float) -> Fit:
    """The fit of an image with these features (D,), whose least value is `lowest`, to a model (its model.json)."""
    if features.shape != statistics.joint.mean.shape:
        return Fit("unknown", None, (OTHER_NETWORK,))
    scores, joints, faults = statistics.scores(features[None])
    score, joint = float(scores[0]), float(joints[0])
    distances = joint, float(faults.max(initial=0.0))
    verdict = verdict_of(score, joint)
    if verdict == "fits":
        return Fit(verdict, score, distances=distances)
    how = "does not look" if verdict == "unfit" else "hardly looks"
    reason = (
        f"The image {how} like those that the model '{model['name']}' was trained on (its score is {score:.1f}; those of "
        f"such images are below {UNUSUAL})."
    )
    told, fault = kind_hints(model, lowest), statistics.fault_of(features)
    if not told and fault is not None:
        told = [FAULTS[each] for each in FAULTS if fault.startswith(each)]
        return Fit(verdict, score, (reason, *told), distances=distances)
    return Fit(verdict, score, (reason, *told), other_kind=bool(told), distances=distances)


def kind_hints(model: dict[str, Any], lowest: float) -> list[str]:
    """What the values alone say against a model: those of a CT begin at -1000, others have no air below 0."""
    for_ct, is_ct = model["intensity"]["rule"] == "ct", lowest < HOUNSFIELD
    if is_ct and not for_ct:
        return [
            f"This looks like a CT (its values begin at {lowest:.0f}); the model was trained on {model['modality']}."
        ]
    if for_ct and lowest >= 0:
        return [f"This does not look like a CT (its values begin at {lowest:.0f}, not at -1000 with the air)."]
    return []


def verdict_of(score: float, joint: float) -> Verdict:
    """What a score means, and that of all features together: other colours or a fault alone are unusual, no more."""
    return "unfit" if not joint < UNFIT else "unusual" if score >= UNUSUAL else "fits"
