"""The file of a result, by its ending: a label map, or a DICOM object of the series that it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..image.geometry import Image, ImageError
from ..image.tags import provenance
from ..image.writing import LABEL_SUFFIXES, write_labels
from .source import refuse_other_images

RTSTRUCT, SEG = ".rtstruct.dcm", ".dcm"
RESULT_SUFFIXES = (*LABEL_SUFFIXES, RTSTRUCT, SEG)


@dataclass(frozen=True)
class Origin:
    """What a result is made from: image files or DICOM folders, of which `series` chooses, by a model with `options`."""

    images: Sequence[Path]
    series: Sequence[str] | None
    package: object
    options: dict


def result_suffix(path: str | os.PathLike) -> str:
    """Which of RESULT_SUFFIXES a file name ends with; ImageError for none of them."""
    name = os.fspath(path).lower()
    for suffix in RESULT_SUFFIXES:
        if name.endswith(suffix):
            return suffix
    raise ImageError(
        f"{Path(path).name} does not end like a result that can be written.",
        f"Choose one of {', '.join(RESULT_SUFFIXES)}.",
        "bad_output",
    )


def check_result(path: Path, images: Sequence[Path]) -> None:
    """An error where a result with this name cannot be written of these images: DICOM needs a series, and a library."""
    suffix = result_suffix(path)
    if suffix not in LABEL_SUFFIXES:
        refuse_other_images(images[0] if images else path)
    if suffix == SEG:
        from .dicom_seg import need_highdicom

        need_highdicom()


def write_result(
    path: Path,
    labels: np.ndarray,
    image: Image,
    described: Sequence[dict],
    origin: Origin,
    seg_type: str,
    before_it_moves: Callable[[Path], None],
) -> None:
    """Write a label map (I, J, K) on the grid of `image`; all or nothing, as `write_labels` and `write_dicom_seg`."""
    package, options, suffix = origin.package, origin.options, result_suffix(path)
    if suffix in LABEL_SUFFIXES:
        write_labels(path, labels, image, described, provenance(package, options), before_it_moves)
        return
    from .source import read_source

    source = read_source(origin.images, origin.series)
    if suffix == SEG:
        from .dicom_seg import write_dicom_seg

        write_dicom_seg(path, labels, source, package, described, seg_type, options, before_it_moves)
    else:
        from .rtstruct import write_rtstruct

        write_rtstruct(path, labels, source, package, described, options, before_it_moves)
