"""The cases of a batch that the model was least sure of, and a picture of each, for the page of a report."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import UserFacingError, explained
from ..image.constants import LABEL_SUFFIXES
from ..image.geometry import ImageError
from ..outputs.choices import PREVIEW
from ..outputs.png import png
from ..outputs.preview import preview
from ..outputs.results import paths_beside
from ..package import resolve
from ..package.regions import labels_in
from .image_reader import ImageReader
from .report import DONE, EDITED

VERDICTS = ("unfit", "unusual")  # of fit, worst first; all others are alike
COLOURS = (
    (230, 60, 60),
    (70, 160, 240),
    (90, 200, 90),
    (240, 190, 60),
    (190, 110, 230),
    (70, 210, 210),
    (240, 130, 60),
)


@dataclass(frozen=True)
class Shown:
    """A case with its picture (PNG) or the reason why there is none, and its labels with their colours in the picture."""

    case: dict
    picture: bytes | None
    reason: str = ""
    labels: Sequence[dict] = ()


def least_sure(cases: Sequence[dict], most: int) -> list[dict]:
    """Of the cases of a `Report` those with a result, least sure first: images that do not fit the model, then by doubt."""
    there = [case for case in cases if case["state"] in (DONE, EDITED)]
    return sorted(there, key=doubt, reverse=True)[:most]


class LeastSure:
    """Picks the `least_sure` among cases that come one after the other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._cases: list[dict] = []

    def add(self, case: dict) -> None:
        self._cases.append(case)
        if len(self._cases) > 2 * self._most:
            self._cases = self.cases

    @property
    def cases(self) -> list[dict]:
        return least_sure(self._cases, self._most)


def doubt(case: dict) -> tuple[int, float, float, float]:
    """What orders cases: fit, the worst expected Dice, mean uncertainty, score of the fit; -1 where one is not known."""
    fit, unsure = case.get("fit") or {}, uncertainty(case)
    verdict = fit.get("verdict")
    rank = len(VERDICTS) - VERDICTS.index(verdict) if verdict in VERDICTS else 0
    score = fit.get("score")
    expected = [each["expected_dice"]["mean"] for each in case.get("segments") or () if each.get("expected_dice")]
    wrong = 1 - min(expected) if expected else -1.0
    return rank, wrong, -1.0 if unsure is None else unsure, -1.0 if score is None else float(score)


def uncertainty(case: dict) -> float | None:
    """The mean over all voxels of its segments, 1 where nothing was found; None where it was not noted."""
    segments = [segment for segment in case.get("segments") or () if "uncertainty" in segment]
    found = [(segment["voxels"], segment["uncertainty"]) for segment in segments if segment["voxels"]]
    if not segments:
        return None
    return sum(count * mean for count, mean in found) / sum(count for count, _ in found) if found else 1.0


def pictures_of(cases: Sequence[dict]) -> list[Shown]:
    """A picture of each case, as its files are now."""
    reader = ImageReader()
    try:
        return [picture_of(case, reader) for case in cases]
    finally:
        reader.close()


def picture_of(case: dict, reader: ImageReader) -> Shown:
    """From the image and the label map, or, of a DICOM result, the preview that lies beside it."""
    output = Path(case["output"])
    try:
        if not output.name.lower().endswith(LABEL_SUFFIXES):
            (beside,) = paths_beside(output, [PREVIEW])
            if not beside.is_file():
                raise ImageError("Of DICOM results only previews are shown.", f"Make them with --also {PREVIEW}.")
            return Shown(case, beside.read_bytes())
        image = reader.read([Path(path) for path in case.get("inputs", ())], case.get("series"))
        labels = reader.read([output]).array[0]
        if labels.shape != image.shape:
            reason = f"{output.name} does not lie on the grid of its image."
            raise ImageError(reason, "Export it as one label map on that grid.")
        described = described_labels(case, labels)
        return Shown(case, png(preview(image, labels, described)), labels=described)
    except (UserFacingError, OSError) as error:
        return Shown(case, None, str(explained(error)))


def described_labels(case: dict, labels: np.ndarray) -> list[dict]:
    """The labels as the model describes them, or, where it is not here, by the names in the report and in other colours."""
    model = case.get("model") or {}
    with contextlib.suppress(UserFacingError):
        package = resolve(model.get("id", ""))
        if package.sha256 == model.get("sha256"):
            return labels_in(package.model, labels)
    named = {segment["value"]: segment["name"] for segment in case.get("segments") or ()}
    values = sorted(set(np.unique(labels).tolist()) - {0} | set(named))
    return [
        {"value": value, "name": named.get(value, f"label {value}"), "color": COLOURS[number % len(COLOURS)]}
        for number, value in enumerate(values)
    ]
