"""Images in NIfTI files: `.nii`, `.nii.gz`, pairs of `.hdr` and `.img`. Needs numpy alone.

The files are read here and not by ITK, because that takes the voxels of `scan.nii` where `scan.nii.gz` is asked for, fills
what a cut off file lacks with zeros, places voxels by `pixdim` where the matrix says otherwise, and reads no NIfTI-2.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np

from ..geometry import FUNCTIONAL_REMEDY, Image, ImageError
from ..modality import PHOTOGRAPHS
from .nifti_header import FIRST_VOXEL, HEADER_BYTES, PLACES_DIFFER, NiftiHeader, farthest, parse_header, place_voxels
from .parts import other_parts
from .unpacking import COPY_AGAIN, Rest, read_bytes, read_start

SUFFIXES = (".nii.gz", ".nii", ".hdr", ".img", ".img.gz")
TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}
COLOURS = {128: 3, 2304: 4}  # bytes of each voxel
COMPLEX = (32, 1792, 2048)


def read_nifti(path: Path, _read=None) -> Image:
    """The image in a NIfTI file; vectors and colours become channels. ImageError for what is none or cannot be used."""
    path, voxels = header_and_voxels(path)
    header = parse_header(read_start(path, HEADER_BYTES), path.name)
    if header is None:
        raise _no_nifti(path)
    _refuse_unusable(header, path.name)
    matrix, notices = place_voxels(header.geometry, header.sizes, path.name)
    array, rest = _read_voxels(header, voxels, first=0 if voxels != path else FIRST_VOXEL[header.version])
    array, scaling = scaled(array, header.slope, header.intercept, path.name)
    if header.datatype in COLOURS and len(array) == 4:
        array, scaling = array[:3], (*scaling, f"The transparency of {path.name} was ignored.")
    kinds = (PHOTOGRAPHS,) if header.datatype in COLOURS else ()
    told = (*notices, *scaling, *rest.told(voxels.name))
    return Image(array, matrix, told, nifti=header.geometry, modalities=kinds)


def placed_elsewhere(path: Path, ijk_to_ras: np.ndarray) -> float:
    """How far (mm) Slicer's matrix for a NIfTI file places voxels from where they are placed here; 0 for the same place.

    0 as well where its header leaves no choice, or cannot be read: then a difference was made by somebody on purpose. Of
    left-handed grids Slicer turns the order of the slices round.
    """
    try:
        header = parse_header(read_start(header_and_voxels(path)[0], HEADER_BYTES), path.name)
        if header is None:
            return 0.0
        matrix, notices = place_voxels(header.geometry, header.sizes, path.name)
    except (ImageError, OSError):
        return 0.0
    theirs, turned = np.asarray(ijk_to_ras, dtype=np.float64), np.diag([1.0, 1.0, -1.0, 1.0])
    turned[2, 3] = header.sizes[2] - 1
    apart = min(farthest(matrix, each, header.sizes) for each in (theirs, theirs @ turned))
    return apart if notices and apart > PLACES_DIFFER else 0.0


def header_and_voxels(path: Path) -> tuple[Path, Path]:
    """The files that hold header and voxels: one and the same, or a pair of which either may be named."""
    lower = path.name.lower()
    if lower.endswith((".nii", ".nii.gz")):
        return path, path
    other = next(iter(other_parts(path)), None)
    if other is None:
        stem = path.name[: -len(".img.gz" if lower.endswith(".gz") else ".img")]
        missing, what = (f"{stem}.img", "voxels") if lower.endswith(".hdr") else (f"{stem}.hdr", "header")
        raise ImageError(
            f"{path.name} is one of a pair of files; {missing} with the {what} is not beside it.",
            f"Put {missing} into the same folder.",
        )
    return (path, other) if lower.endswith(".hdr") else (other, path)


def _no_nifti(path: Path) -> ImageError:
    is_pair = path.name.lower().endswith(".hdr")
    if is_pair and read_start(path, 4) in (struct.pack("<i", 348), struct.pack(">i", 348)):
        return ImageError(
            f"{path.name} is an Analyze 7.5 file, which does not say where left and right are.",
            "Load it in Slicer, check its sides and save it as .nrrd.",
        )
    return ImageError(f"{path.name} is damaged, cut off or no NIfTI file: it has no such header.", COPY_AGAIN)


def _refuse_unusable(header: NiftiHeader, name: str) -> None:
    """ImageError for sizes and voxel types that no model can use."""
    sizes = header.sizes
    if 0 in sizes:
        raise ImageError(f"{name} is empty: it has no voxels.", "Choose another volume.")
    if sizes[3] > 1 or max(sizes[5:]) > 1:
        shape = sizes[: header.dimensions]
        raise ImageError(
            f"{name} has {header.dimensions} dimensions ({' x '.join(map(str, shape))}), such as a time series; "
            "only 2D and 3D volumes can be segmented.",
            FUNCTIONAL_REMEDY,
        )
    if header.datatype in COMPLEX:
        raise ImageError(f"{name} has complex numbers as voxels.", "Save its magnitude as a volume and segment that.")
    if header.datatype not in TYPES and header.datatype not in COLOURS:
        raise ImageError(
            f"{name} has voxels of a type that is not known (datatype {header.datatype}).",
            "Save it with voxels of 8, 16 or 32 bits.",
        )


def _read_voxels(header: NiftiHeader, path: Path, first: int) -> tuple[np.ndarray, Rest]:
    """The voxels (C, I, J, K), not scaled, and what follows them; `first`: the least place where they can begin."""
    if header.offset < first:
        raise ImageError(
            f"The header of {path.name} is damaged: it says that voxels begin at byte {header.offset}, inside of it.",
            COPY_AGAIN,
        )
    colours, kind = COLOURS.get(header.datatype), np.dtype(header.order + TYPES.get(header.datatype, "u1"))
    shape = header.sizes[:3]
    components = colours or 1
    count = math.prod(shape) * components * header.sizes[4] * kind.itemsize
    data, rest = read_bytes(path, header.offset, count)
    data = data.view(kind)
    if colours:
        if header.sizes[4] > 1:
            raise ImageError(f"{path.name} has several colours in each voxel.", "Save one of them as a volume.")
        array = data.reshape(colours, *shape, order="F")
    else:
        array = data.reshape(*shape, header.sizes[4], order="F").transpose(3, 0, 1, 2)
    return array.astype(kind.newbyteorder("="), copy=False), rest


def scaled(array: np.ndarray, slope: float, intercept: float, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """`array` times `slope` plus `intercept`, in an integer type where nothing is lost; and notices.

    A slope of 0 (or none: NaN) means that the stored values are the values, whatever the intercept says (nifti1.h).
    """
    notices: tuple[str, ...] = ()
    if slope == 0 or math.isnan(slope):
        if math.isfinite(intercept) and intercept != 0:
            notices = (
                f"{name} has an intercept of {intercept:g} but no slope; by the standard neither counts. "
                "Slicer adds the intercept.",
            )
        return array, notices
    if not math.isfinite(slope) or not math.isfinite(intercept):
        why = f"The header of {name} scales its voxels by numbers that are not finite ({slope:g}, {intercept:g})."
        raise ImageError(why, "Export it again, or set scl_slope and scl_inter in its header.")
    if (slope, intercept) == (1, 0):
        return array, ()
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 2 and slope == 1 and intercept == int(intercept):
        return _shifted(array, int(intercept)), ()
    wide = np.float64 if array.dtype.itemsize > 2 else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # infinities are dealt with as in any other volume
        return (array * np.float64(slope) + np.float64(intercept)).astype(wide, copy=False), ()


def _shifted(array: np.ndarray, by: int) -> np.ndarray:
    """Whole numbers of at most 16 bits plus `by`, in the smallest signed type that holds them all."""
    low, high = int(array.min()) + by, int(array.max()) + by
    kind = next((k for k in (np.int16, np.int32, np.int64) if np.iinfo(k).min <= low and high <= np.iinfo(k).max), None)
    return array.astype(kind or np.float64) + by
