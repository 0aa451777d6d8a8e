"""One case, from its image to its result: the one way in which the command line and the worker do it.

`prepare` looks at what is there and reads the image, `complete` computes and writes; between them lies what may happen at
the same time as another case.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..errors import EngineError, explained
from ..image.box import slices
from ..image.constants import LABEL_SUFFIXES
from ..image.geometry import Image, ImageError
from ..image.labels import LabelFacts
from ..inference.fit import Fit
from ..inference.quality import with_expected, with_tags
from ..outputs.results import Content, suffix_of
from ..package.regions import labels_in
from ..steps import finish
from .claims import Claims
from .measures import add_uncertainty, describe_segments
from .records import EDITED, file_digest, now
from .result_file import ResultFile

if TYPE_CHECKING:
    from ..inference.pipeline import Prepared

T = TypeVar("T")


class MadeElsewhere(EngineError):
    """Another process is making the same result."""


def run_case(
    file: ResultFile,
    read: Callable[[], Image],
    segmenter: Callable,
    facts: dict | None = None,
    progress: Callable | None = None,
    cancelled: Callable[[], bool] | None = None,
    force: bool = False,
) -> dict:
    """All of one case; what there is to tell about it, see `complete` and `skipped`.

    `read` gives the image and `segmenter` the Segmenter, each called only if needed. Raises MadeElsewhere where another
    process works on the same result, and as `prepare` and `complete`.
    """
    if file.is_finished:
        return {**(facts or {}), **skipped(file)}
    file.make_folder()
    name = file.output.name
    with Claims(file.output.parent) as claims:
        if not claims.take(name):
            raise made_elsewhere(name, claims.holder(name))
        file.look()
        image = prepare(file, read)
        if image is None:
            return {**(facts or {}), **skipped(file)}
        return complete(file, image, segmenter(), facts, progress, cancelled, lambda: claims.is_mine(name), force)


def made_elsewhere(name: str, holder: dict) -> MadeElsewhere:
    """The error for a result that another process is making."""
    whose = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}"
    return MadeElsewhere(
        "bad_output", f"{name} is being made by another process ({whose}).", "Wait until it has ended."
    )


def prepare(file: ResultFile, read: Callable[[], T]) -> T | None:
    """What `read` gives, the image of a case; None where its result is there already, edited since or not.

    Raises EngineError bad_output where another file lies in the way, and what `read` raises.
    """
    if file.is_finished:
        return None
    file.check()
    return read()


def complete(
    file: ResultFile,
    image: Image,
    segmenter,
    facts: dict | None = None,
    progress: Callable | None = None,
    cancelled: Callable[[], bool] | None = None,
    still_mine: Callable[[], bool] = lambda: True,
    force: bool = False,
    in_full: bool = False,
    prepared: Prepared | None = None,
) -> dict:
    """Segment, and write the result with its record; what there is to tell about it: `facts` and the following.

    `output`, `beside` (files, if any), `segments` (see `describe_segments`, as for `in_full`, then also how sure the model
    was; with `expected_dice` and `presence`, see `inference.quality`), `removed_share`, `statistics`, `seconds`, `device`,
    `notices`, of these `device_notices`, `fit` (see `inference.fit`).
    `prepared`: see `Segmenter.segment`. Raises EngineError as that and `ResultFile.write`.
    """
    outputs = list(dict.fromkeys([*file.volumes, *(["uncertainty"] if in_full else [])]))
    result = segmenter.segment(
        image, outputs=outputs, **file.options, force=force, progress=progress, cancelled=cancelled, prepared=prepared
    )
    if progress is not None:
        progress("Writing", 1.0, None)
    seen = LabelFacts.of(result.labels, image.ijk_to_ras, result.described)
    segments = describe_segments(result.labels, image, result.described, seen.extents, in_full)
    if result.uncertainty is not None:
        add_uncertainty(segments, result.labels[slices(result.box)], result.uncertainty)
    report = {
        **(facts or {}),
        "output": str(file.output),
        **({"beside": [str(each.output) for each in file.beside]} if file.beside else {}),
        "segments": with_expected(segments, result.expected_dice, result.presence),
        "removed_share": result.statistics["removed_share"],
        "statistics": result.statistics,
        "seconds": result.seconds,
        "device": result.device,
        "notices": result.notices,
        "device_notices": result.device_notices,
        "fit": result.fit.as_dict(),
    }
    volumes = {name: volume for name in outputs if (volume := getattr(result, name)) is not None}
    described = with_tags(result.described, result.expected_dice)
    file.write(Content(result.labels, image, described, volumes, result.box, seen), report, still_mine)
    return report


def skipped(file: ResultFile) -> dict:
    """What there is to tell about a case whose result is there already: `skipped` is finished, or edited since."""
    told: dict = {"output": str(file.output), "skipped": file.state}
    if file.state == EDITED and file.missing:
        told["notices"] = ["Because it was changed since, nothing was written beside it."]
    return told


def measured(file: ResultFile, image: Callable[[], Image], result: Callable[[], Image]) -> dict:
    """`skipped`, with the measures of what lies there, corrected by a person or not; noted in the records.

    `image` and `result` read the two files; a result whose measures are known is not read again. Raises ImageError where
    they do not fit together any more.
    """
    name = file.output.name
    digest = finish(file_digest([file.output]))
    segments = file.records.measures_of(name, digest)
    if segments is None:
        if suffix_of(file.output) not in LABEL_SUFFIXES:
            reason = f"{name} was made without --statistics, and DICOM results are not measured afterwards."
            raise ImageError(reason, "Say --again to make it once more, or leave --statistics out.")
        given, found = image(), result()
        if found.array.shape != (1, *given.shape):
            raise ImageError(
                f"{name} does not lie on the grid of its image.", "Export it as one label map on that grid."
            )
        described = labels_in(file.package.model, found.array)
        seen = LabelFacts.of(found.array[0], given.ijk_to_ras, described)
        segments = describe_segments(found.array[0], given, described, seen.extents, in_full=True)
        file.records.append({"output": name, "measured": digest, "segments": segments, "written": now()})
    return {**skipped(file), "segments": segments}


def failed(error: Exception) -> dict:
    """What there is to tell about a case that failed: its `error` with code, and message and remedy as one text.

    For an image that does not suit the model, `fit` too.
    """
    told = explained(error)
    outcome: dict = {"error": {"code": told.code, "message": " ".join(str(told).split())}}
    if told.code == "does_not_fit":
        fit = getattr(told, "fit", None) or Fit("unfit", None, (told.message,))
        outcome["fit"] = fit.as_dict()
    return outcome
