"""The files of a result, by their endings: label maps, DICOM objects of the series it was made from, and what lies beside."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..errors import EngineError
from ..files import replaced_when_whole
from ..image.constants import LABEL_SUFFIXES
from ..image.geometry import Image, ImageError
from ..image.labels import LabelFacts
from ..image.tags import provenance
from ..image.writing import nrrd_bytes, write_labels
from .choices import ALSO, BESIDE, OBJ, PREVIEW, RESULT_SUFFIXES, RTSTRUCT, SEG, STL, VOLUMES
from .source import refuse_other_images

Box = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Origin:
    """What a result is made from: image files or DICOM folders, of which `series` chooses, by a model with `options`."""

    images: Sequence[Path]
    series: Sequence[str] | None
    package: object
    options: dict


@dataclass(frozen=True)
class Content:
    """What there is to write: `labels` (I, J, K) on the grid of `image`, the `described` labels that it may hold.

    `volumes`: outputs of the run by their names, uint8 (I, J, K), probabilities (classes, I, J, K), on the part of the grid
    in `box`. `facts`: those of `labels`, if they are known.
    """

    labels: np.ndarray
    image: Image
    described: Sequence[dict]
    volumes: Mapping[str, np.ndarray] = field(default_factory=dict)
    box: Box | None = None
    facts: LabelFacts | None = None


def result_suffix(path: str | os.PathLike) -> str:
    """Which of RESULT_SUFFIXES a file name ends with; ImageError for none of them."""
    name = os.fspath(path).lower()
    beside = next((ending for ending in BESIDE if name.endswith(ending)), None)
    if beside:
        reason = f"{Path(path).name} would be a file beside a result, not a result."
        raise ImageError(reason, f"Name a label map with -o, and say --also {beside}.", "bad_output")
    suffix = next((suffix for suffix in RESULT_SUFFIXES if name.endswith(suffix)), None)
    if suffix is None:
        reason = f"{Path(path).name} does not end like a result that can be written."
        raise ImageError(reason, f"Choose one of {', '.join(RESULT_SUFFIXES)}.", "bad_output")
    return suffix


def suffix_of(path: Path) -> str:
    """The ending of a result, or of a file beside one."""
    name = path.name.lower()
    return next((ending for ending in BESIDE if name.endswith(ending)), None) or result_suffix(path)


def paths_beside(output: Path, endings: Sequence[str]) -> list[Path]:
    """The files with these endings beside a result. ImageError for an ending that nothing has, or that of the result."""
    suffix = result_suffix(output)
    for ending in endings:
        if ending not in ALSO:
            remedy = f"Choose among {', '.join(ALSO)}."
            raise ImageError(f"No file that ends in '{ending}' can be written beside a result.", remedy, "bad_output")
        if ending == suffix:
            reason = f"{output.name} cannot lie beside itself."
            raise ImageError(reason, f"Leave out --also {ending}.", "bad_output")
    return [output.with_name(output.name[: -len(suffix)] + ending) for ending in dict.fromkeys(endings)]


def check_result(path: Path, images: Sequence[Path]) -> None:
    """An error where a file with this name cannot be written of these images: DICOM needs a series, and a library."""
    suffix = suffix_of(path)
    if suffix in (SEG, RTSTRUCT):
        refuse_other_images(images[0] if images else path)
    if suffix == SEG:
        from .dicom_seg import need_highdicom

        need_highdicom()


def write_result(
    path: Path, content: Content, origin: Origin, seg_type: str, before_it_moves: Callable[[Path], None]
) -> None:
    """Write a file as its ending says, all or nothing; `before_it_moves` and errors as of `write_labels`, `write_beside`."""
    package, options, suffix = origin.package, origin.options, suffix_of(path)
    labels, described = content.labels, content.described
    if suffix in LABEL_SUFFIXES:
        tags = provenance(package, options)
        write_labels(path, labels, content.image, described, tags, before_it_moves, content.facts)
    elif suffix == SEG:
        from .dicom_seg import write_dicom_seg
        from .source import read_source

        source = read_source(origin.images, origin.series)
        write_dicom_seg(path, labels, source, package, described, seg_type, options, before_it_moves)
    elif suffix == RTSTRUCT:
        from .rtstruct import write_rtstruct
        from .source import read_source

        source = read_source(origin.images, origin.series)
        write_rtstruct(path, labels, source, package, described, options, before_it_moves)
    else:
        with replaced_when_whole(path, suffix) as temporary:
            write_beside(temporary, suffix, content)
            before_it_moves(temporary)


def write_beside(path: Path, ending: str, content: Content) -> None:
    """Write what one of BESIDE stands for. EngineError for a volume that the run did not give."""
    from .preview import preview
    from .surfaces import write_obj, write_stl

    labels, image, described = content.labels, content.image, content.described
    if ending == PREVIEW:
        from .png import png

        path.write_bytes(png(preview(image, labels, described)))
    elif ending in (STL, OBJ):
        {STL: write_stl, OBJ: write_obj}[ending](path, labels, image, described)
    else:
        volume = content.volumes.get(VOLUMES[ending])
        if volume is None:
            reason = f"The model gives no {VOLUMES[ending].replace('_', ' ')}."
            raise EngineError("bad_output", reason, f"Leave out --also {ending}.")
        names = ["background", *(label["name"] for label in described)] if volume.ndim == 4 else []
        fields = {"ProSMA.scale": "255 is 1"} | {f"ProSMA.class{n}": name for n, name in enumerate(names)}
        path.write_bytes(nrrd_bytes(volume, image.cropped(content.box) if content.box else image, fields))
