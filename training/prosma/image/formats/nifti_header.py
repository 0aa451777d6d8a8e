"""NIfTI-1 and NIfTI-2 headers: sizes, voxel type, scaling, and where the voxels lie. Needs numpy alone.

Layout and meaning: nifti1.h and nifti2.h (nifti.nimh.nih.gov). A header can place its voxels three times: by `sform` (a
matrix), by `qform` (a rotation with `pixdim`), and, with neither, by `pixdim` alone, without any orientation.
"""

from __future__ import annotations

import itertools
import struct
from dataclasses import dataclass

import numpy as np

from ..geometry import ImageError, is_sheared

HEADER_BYTES = 544
MAGIC = {1: (344, (b"n+1\0", b"ni1\0")), 2: (4, (b"n+2\0", b"ni2\0"))}  # by version: place, texts
FIELDS = {  # name: (type and place in NIfTI-1, type and place in NIfTI-2)
    "sizes": ("8h", 40, "8q", 16),
    "datatype": ("h", 70, "h", 12),
    "pixdim": ("8f", 76, "8d", 104),
    "offset": ("f", 108, "q", 168),
    "slope": ("f", 112, "d", 176),
    "intercept": ("f", 116, "d", 184),
    "units": ("B", 123, "i", 500),
    "qform_code": ("h", 252, "i", 344),
    "sform_code": ("h", 254, "i", 348),
    "quaternion": ("3f", 256, "3d", 352),
    "qoffset": ("3f", 268, "3d", 376),
    "rows": ("12f", 280, "12d", 400),
}
FIRST_VOXEL = {1: 352, 2: 544}  # the least offset of voxels in the header's own file
KNOWN_UNITS = (0, 1, 2, 3)  # of xyzt_units: not said, and those of lengths
NO_UNIT = "The header of {name} gives lengths in a unit that does not exist ({code}); mm were assumed."
UNITS = {1: (1000.0, "metres"), 3: (0.001, "microns")}  # of xyzt_units: in mm; 2 is mm, 0 is not said
QUATERNION_TOLERANCE = 1e-3
PLACES_DIFFER = 0.1  # mm, or this share of the smallest voxel where that is less
SIZES_DIFFER = 0.01  # share
NOT_MM = "The header of {name} gives lengths in {unit}; they were converted to mm."
NO_ORIENTATION = (
    "The header of {name} does not say how the image is oriented. It was assumed, as Slicer does, that its axes run to the "
    "patient's left, back and head, so left and right may be swapped."
)
TWO_PLACES = (
    "The header of {name} places its voxels in two ways that lie up to {mm:.4g} mm apart: the sform (code {sform}) was used, "
    "as most programs do; Slicer {slicer}."
)
BAD_SFORM = "The sform of {name} {why}, so its qform was used, as Slicer does{apart}."
TWO_SIZES = (
    "The header of {name} gives two voxel sizes: {matrix} mm by its matrix, which was used, and {pixdim} mm by pixdim, "
    "which Slicer takes."
)
SHEARED_REMEDY = "Resample it to a regular grid first, for instance with resample_to_output of nibabel.processing."
HEADER_REMEDY = "Export it again, or correct its header, for instance with nibabel."


@dataclass(frozen=True)
class NiftiGeometry:
    """The entries of a header that say where voxels lie, as they stand there: lengths in the header's own units.

    `quaternion` is (b, c, d), `rows` (3, 4) the sform, `pixdim` its first four numbers, `units` that of lengths.
    """

    pixdim: tuple[float, ...]
    qform_code: int
    sform_code: int
    quaternion: tuple[float, ...]
    qoffset: tuple[float, ...]
    rows: np.ndarray
    units: int

    @property
    def sform(self) -> np.ndarray:
        """The sform as 4 x 4 float64, whatever its code."""
        return np.vstack([self.rows, (0, 0, 0, 1)]).astype(np.float64)

    @property
    def qform(self) -> np.ndarray:
        """The qform as 4 x 4 float64, whatever its code; NaN where its quaternion is none."""
        b, c, d = self.quaternion
        rest = 1.0 - (b * b + c * c + d * d)
        matrix = np.full((4, 4), np.nan)
        if not rest >= -QUATERNION_TOLERANCE:  # also where it is NaN
            return matrix
        a, norm = np.sqrt(max(rest, 0.0)), np.sqrt(max(1.0 - rest, 1.0))
        b, c, d = b / norm, c / norm, d / norm
        rotation = np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )
        matrix[:] = np.eye(4)
        with np.errstate(invalid="ignore"):  # an infinite voxel size makes the matrix unusable, which is found later
            matrix[:3, :3] = rotation * self.spacing * (1, 1, -1 if self.pixdim[0] < 0 else 1)
        matrix[:3, 3] = self.qoffset
        return matrix

    @property
    def spacing(self) -> np.ndarray:
        """The voxel size that `pixdim` gives; its sign has no meaning there."""
        return np.abs(np.array(self.pixdim[1:4], dtype=np.float64))


@dataclass(frozen=True)
class NiftiHeader:
    """`sizes`: the seven numbers of voxels, 1 for axes that are not there. `order`: "<" or ">". `offset` in bytes."""

    version: int
    order: str
    dimensions: int
    sizes: tuple[int, ...]
    datatype: int
    offset: int
    slope: float
    intercept: float
    geometry: NiftiGeometry


def parse_header(start: bytes, name: str) -> NiftiHeader | None:
    """What the first bytes of a file say; None where they are no NIfTI header.

    ImageError for a number of dimensions, a size or an offset that no NIfTI file has.
    """
    version = next((v for v, (at, texts) in MAGIC.items() if start[at : at + 4] in texts), None)
    if version is None or len(start) < (348 if version == 1 else 540):
        return None
    for order in "<>":
        fields = {key: _unpack(start, order, version, layout) for key, layout in FIELDS.items()}
        dimensions, *sizes = fields["sizes"]
        if 1 <= dimensions <= 7:
            break
    else:
        raise _damaged(name, f"it names {dimensions} dimensions")
    sizes = [*sizes[:dimensions], *[1] * (7 - dimensions)]
    sizes = [*sizes[:3], *(size or 1 for size in sizes[3:])]  # some programs leave 0 for axes without a meaning
    if min(sizes) < 0:
        raise _damaged(name, f"it names {min(sizes)} voxels along an axis")
    offset = fields["offset"][0]
    if not np.isfinite(offset) or offset < 0:
        raise _damaged(name, f"it says that voxels begin at byte {offset}")
    geometry = NiftiGeometry(
        fields["pixdim"][:4],
        fields["qform_code"][0],
        fields["sform_code"][0],
        fields["quaternion"],
        fields["qoffset"],
        np.array(fields["rows"], dtype=np.float64).reshape(3, 4),
        fields["units"][0] & 7,
    )
    return NiftiHeader(
        version,
        order,
        dimensions,
        tuple(sizes),
        fields["datatype"][0],
        int(offset),
        fields["slope"][0],
        fields["intercept"][0],
        geometry,
    )


def _unpack(start: bytes, order: str, version: int, layout: tuple) -> tuple:
    kind, place = layout[2 * version - 2 :][:2]
    return struct.unpack_from(order + kind, start, place)


def _damaged(name: str, why: str) -> ImageError:
    return ImageError(f"The header of {name} is damaged: {why}.", "Copy, download or export it again.")


def place_voxels(geometry: NiftiGeometry, sizes, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The IJK-to-RAS matrix (mm) of a grid of `sizes`, and notices about what was assumed.

    The sform is taken before the qform, as nibabel and most other programs do, unless it cannot be used and the qform can.
    ImageError where the header places the voxels nowhere, or on a sheared grid.
    """
    factor, unit = UNITS.get(geometry.units, (1.0, ""))
    notices = [NOT_MM.format(name=name, unit=unit)] if unit else []
    notices += [NO_UNIT.format(name=name, code=geometry.units)] if geometry.units not in KNOWN_UNITS else []
    sform = _thick(geometry.sform, geometry, sizes) if geometry.sform_code > 0 else None
    qform = _thick(geometry.qform, geometry, sizes) if geometry.qform_code > 0 else None
    first = qform if sform is None else sform
    if first is None:
        matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.diag([*_thick_spacing(geometry), 1.0])
        notices.append(NO_ORIENTATION.format(name=name))
    elif sform is not None and qform is not None and (fault := fault_of(sform)) and not fault_of(qform):
        matrix = qform
        apart = (
            f"; places differ by up to {factor * farthest(sform, qform, sizes):.4g} mm" if "sheared" in fault else ""
        )
        notices.append(BAD_SFORM.format(name=name, why=fault, apart=apart))
    else:
        matrix = _refuse_unusable(first, name)
        if sform is not None:
            notices += _disagreements(geometry, sform, qform, sizes, name, factor)
    return np.diag([factor, factor, factor, 1.0]) @ matrix, tuple(notices)


def _thick_spacing(geometry: NiftiGeometry) -> np.ndarray:
    """`pixdim` with 1 for what is 0 or not finite."""
    spacing = geometry.spacing
    return np.where(np.isfinite(spacing) & (spacing > 0), spacing, 1.0)


def _thick(matrix: np.ndarray, geometry: NiftiGeometry, sizes) -> np.ndarray:
    """`matrix`, whose third axis gets a direction and a length where an image of one slice gives it none."""
    columns = matrix[:3, :3]
    if sizes[2] > 1 or not np.isfinite(matrix).all() or columns[:, 2].any():
        return matrix
    normal = np.cross(columns[:, 0], columns[:, 1])
    result = matrix.copy()
    result[:3, 2] = normal / max(np.linalg.norm(normal), 1e-30) * _thick_spacing(geometry)[2]
    return result


def fault_of(matrix: np.ndarray) -> str:
    """Why a matrix (4 x 4) cannot be used, in words that follow "The sform ..."; "" if it can."""
    if not np.isfinite(matrix).all():
        return "is not finite"
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-6:
        return "is singular"
    return "is sheared" if is_sheared(matrix) else ""


def _refuse_unusable(matrix: np.ndarray, name: str) -> np.ndarray:
    """`matrix`; ImageError where no image can lie so."""
    fault = fault_of(matrix)
    if fault == "is sheared":
        why = f"{name} is sheared: its axes are not at right angles, as after a tilted CT gantry."
        raise ImageError(why, SHEARED_REMEDY)
    if fault:
        raise ImageError(f"The header of {name} does not say where its voxels lie: its matrix {fault}.", HEADER_REMEDY)
    return matrix


def _disagreements(geometry, sform, qform, sizes, name, factor) -> list[str]:
    """Notices about a qform and a voxel size that differ from the sform's; `factor`: mm in one of the header's units."""
    notices = []
    spacing = np.linalg.norm(sform[:3, :3], axis=0)
    if qform is not None and not fault_of(qform):
        apart = farthest(sform, qform, sizes)
        if apart * factor > PLACES_DIFFER * min(1.0, spacing.min() * factor):
            slicer = "does so too" if geometry.sform_code == 1 else "may take the qform"
            notices.append(TWO_PLACES.format(name=name, mm=apart * factor, sform=geometry.sform_code, slicer=slicer))
    axes = [axis for axis in range(3) if sizes[axis] > 1]
    if any(abs(geometry.spacing[axis] - spacing[axis]) > SIZES_DIFFER * spacing[axis] for axis in axes):
        matrix, pixdim = (" x ".join(f"{mm * factor:.4g}" for mm in values) for values in (spacing, geometry.spacing))
        notices.append(TWO_SIZES.format(name=name, matrix=matrix, pixdim=pixdim))
    return notices


def farthest(one: np.ndarray, other: np.ndarray, sizes) -> float:
    """How far apart two matrices place a corner of the grid, at most."""
    corners = np.array([[*corner, 1] for corner in itertools.product(*((0, size - 1) for size in sizes[:3]))])
    return float(np.linalg.norm((corners @ (one - other).T)[:, :3], axis=1).max())
