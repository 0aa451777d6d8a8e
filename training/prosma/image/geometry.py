"""Images as arrays with a place in the patient, and the way to a model's own view of them and back.

Arrays are (C, I, J, K); `ijk_to_ras` is a 4 x 4 float64 matrix (mm) whose column n belongs to array axis n. A model
sees its *canonical* array: axes permuted and flipped to the closest anatomical orientation, then resampled to the
model's spacing on the same extent (sample centres at (i + 0.5) * n_in / n_out - 0.5, as `align_corners=False`). Grid
sizes alone decide the interpolation weights, so two matrices that differ by rounding give the same voxels. Needs numpy
alone.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserFacingError
from .box import slices, start_of
from .constants import MM3_PER_ML
from .resampling import resample, resample_nearest

if TYPE_CHECKING:
    from .formats.nifti_header import NiftiGeometry

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
ANATOMY = {"R": (0, 1), "L": (0, -1), "A": (1, 1), "P": (1, -1), "S": (2, 1), "I": (2, -1)}
FUNCTIONAL_REMEDY = "Choose one time point or one volume of it and save that as a 3D volume."
MOST_INFINITE = 0.05  # share of a channel's voxels
SHEAR_TOLERANCE = 1e-3  # cosine between two axes above which a grid counts as sheared (0.06 degrees)


class ImageError(UserFacingError):
    """An image that cannot be used."""


@dataclass(frozen=True)
class Image:
    """A volume: `array` (C, I, J, K), `ijk_to_ras` 4 x 4 float64 in mm, `notices` about what was changed on reading.

    `spacing_known` is false for pictures, which have pixels and no size in mm. `nifti` is what the header of a NIfTI file
    says about its place, for results that are to lie on it in every program. `checked` tells that `checked_image` has
    passed it, so that the doors check an image once, whichever it comes through. `reference` names the coordinate system
    that its place belongs to (DICOM's FrameOfReferenceUID); "" where it is not told. `modalities`: what DICOM headers call
    the kinds of its channels, such as "CT", and `modality.PHOTOGRAPHS` of colours in NIfTI; none where they are not told.

    >>> image = Image(np.zeros((1, 20, 30, 10)), np.diag([0.5, 0.5, 2.0, 1.0]))
    >>> image.shape, image.spacing, image.voxel_ml
    ((20, 30, 10), (0.5, 0.5, 2.0), 0.0005)
    >>> image.cropped(((4, 8), (0, 30), (0, 10))).ijk_to_ras[:3, 3].tolist()
    [2.0, 0.0, 0.0]
    """

    array: np.ndarray
    ijk_to_ras: np.ndarray
    notices: tuple[str, ...] = ()
    spacing_known: bool = True
    nifti: NiftiGeometry | None = None
    checked: bool = False
    reference: str = ""
    modalities: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along I, J, K."""
        return tuple(self.array.shape[1:])

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size in mm along I, J, K."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def voxel_ml(self) -> float | None:
        """Volume of one voxel in millilitres; None for a picture, whose pixels have no known size."""
        if not self.spacing_known:
            return None
        return float(abs(np.linalg.det(self.ijk_to_ras[:3, :3]))) / MM3_PER_ML

    def cropped(self, box) -> Image:
        """The part inside `box` ((i0, i1), (j0, j1), (k0, k1)), half open; no copy."""
        box = [(int(low), int(high)) for low, high in box]
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] = (self.ijk_to_ras @ [*start_of(box), 1.0])[:3]
        return replace(self, array=self.array[(slice(None), *slices(box))], ijk_to_ras=matrix, nifti=None)


def check_matrix(matrix) -> np.ndarray:
    """The IJK-to-RAS matrix as 4 x 4 float64; ImageError where it is not finite, singular or sheared."""
    matrix = np.asarray(matrix, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ImageError("The volume's geometry is not a finite 4 x 4 matrix.", "Repair its header and load it again.")
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    if spacing.min() <= 1e-9 or abs(np.linalg.det(matrix[:3, :3] / spacing)) < 1e-6:
        raise ImageError(
            "The volume's geometry is singular: two of its axes coincide or a voxel has no size.",
            "Repair its spacing and directions, then load it again.",
        )
    if is_sheared(matrix):
        raise ImageError(
            "The volume's axes are not at right angles (sheared, for instance by a tilted CT gantry).",
            "Resample it to a regular grid first, for instance with Slicer's Resample Scalar/Vector/DWI Volume.",
        )
    return matrix


def is_sheared(matrix) -> bool:
    """Whether the matrix's axes are not at right angles."""
    axes = np.asarray(matrix, dtype=np.float64)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    return bool(np.abs(axes.T @ axes - np.eye(3)).max() > SHEAR_TOLERANCE)


def checked_image(image: Image) -> Image:
    """`image` fit for work: ImageError for what no model can use; stray NaN and infinities replaced with a notice."""
    return replace(finite_image(usable_image(image)), checked=True)


def usable_image(image: Image) -> Image:
    """`image` with a checked matrix; ImageError for dimensions, sizes, types and geometry that no model can use."""
    if image.checked:
        return image
    array = image.array
    if array.ndim != 4:
        raise ImageError(
            f"The volume has {array.ndim - 1} dimensions; only 2D and 3D volumes can be segmented.",
            "Choose one time point or one volume of it.",
        )
    if array.size == 0:
        raise ImageError("The volume is empty: it has no voxels.", "Load or choose another volume.")
    if np.iscomplexobj(array):
        raise ImageError(
            "The volume has complex numbers as voxels.", "Save its magnitude as a volume and segment that."
        )
    if array.dtype.kind not in "biuf":
        raise ImageError(f"The volume's voxels are of the type {array.dtype}.", "Save it with numbers as voxels.")
    return replace(image, ijk_to_ras=check_matrix(image.ijk_to_ras))


def finite_image(image: Image) -> Image:
    """Float images: NaN and -inf become the channel's lowest finite value, +inf its highest, with a notice.

    ImageError for a channel without any finite number, or with many that are too large; NaN often stand for no data.
    """
    if image.checked or image.array.dtype.kind != "f":
        return image
    limit = np.finfo(np.float32).max  # NaN, infinities and what is beyond float32 are not within
    if all((np.abs(plane) <= limit).all() for channel in image.array for plane in slowest_first(channel)):
        return image
    usable = [np.abs(channel) <= limit for channel in image.array]
    for channel, mask in zip(image.array, usable, strict=True):
        share = 1 - (mask | np.isnan(channel)).mean()
        if mask.any() and share > MOST_INFINITE:
            raise ImageError(
                f"{100 * share:.3g} % of the voxels are infinite or beyond 10^38: they were scaled or computed wrongly.",
                "Check the scaling in the file's header, or how the volume was computed.",
            )
    array = np.array(image.array)
    for channel, mask in zip(array, usable, strict=True):
        if not mask.any():
            raise ImageError(
                "The volume holds no finite number (NaN or infinite everywhere).", "Choose another volume."
            )
        low, high = channel[mask].min(), channel[mask].max()
        channel[~mask] = np.where(channel[~mask] > limit, high, low)
    count = sum(int(mask.size - mask.sum()) for mask in usable)
    notice = f"{count} voxels that were not finite numbers were replaced by the nearest end of the volume's range."
    return replace(image, array=array, notices=(*image.notices, notice))


def slowest_first(array: np.ndarray) -> np.ndarray:
    """A view whose first axis is the one whose steps are the longest: its planes lie together in memory."""
    return np.moveaxis(array, int(np.argmax(np.abs(array.strides))), 0)


# --- the model's own view -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Canonical:
    """The way from an image's grid to a model's grid and back.

    `shape`: the image's (I, J, K). `axes[n]` is the image axis that canonical axis n runs along, `flips[n]` whether it
    runs backwards. `size`: the canonical array's spatial shape. `spacing`: its voxel size in mm.
    """

    shape: tuple[int, int, int]
    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    size: tuple[int, int, int]
    spacing: tuple[float, float, float]

    @property
    def oriented_shape(self) -> tuple[int, int, int]:
        """Spatial shape after permutation, before resampling."""
        first, second, third = self.axes
        return self.shape[first], self.shape[second], self.shape[third]

    @property
    def resampled(self) -> bool:
        """Whether the model's grid has other sizes than the image's."""
        return self.size != self.oriented_shape

    def view(self, array: np.ndarray) -> np.ndarray:
        """`array` (..., I, J, K) seen in canonical axis order and direction; a view, so writing into it works too."""
        lead = array.ndim - 3
        array = array.transpose(*range(lead), *(lead + axis for axis in self.axes))
        return array[(..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))]

    def bring_image(self, array: np.ndarray) -> np.ndarray:
        """(C, I, J, K) on the image's grid -> (C, X, Y, Z) on the model's, float32, linear; a new, C-contiguous array."""
        result = np.ascontiguousarray(resample(self.view(array), self.size), dtype=np.float32)
        return result.copy() if np.may_share_memory(result, array) else result

    def bring_labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels (I, J, K) on the image's grid -> (X, Y, Z) on the model's grid, nearest neighbour."""
        return resample_nearest(self.view(labels), self.size)


def to_canonical(image: Image, model) -> tuple[np.ndarray, Canonical]:
    """The image as a model sees it, before normalisation: float32 (C, X, Y, Z), C-contiguous, and the way back.

    The array is always a new one, which may be changed in place. `model` is a ModelPackage or its `model.json` as a dict.
    2D models keep the image's axes: (C, I, J, K), where each k is an image of its own.
    """
    canonical = plan_canonical(image, model)
    return canonical.bring_image(image.array), canonical


def plan_canonical(image: Image, model) -> Canonical:
    """The geometry that `to_canonical` would use, without touching voxels."""
    model = getattr(model, "model", model)
    axes, flips = (0, 1, 2), (False, False, False)
    if model["dimension"] == 3 and model.get("orientation"):
        axes, flips = closest_orientation(image.ijk_to_ras, model["orientation"])
    oriented = [image.shape[axis] for axis in axes]
    spacing = [image.spacing[axis] for axis in axes]
    if model.get("resize"):
        size = [*model["resize"], oriented[2]]
    elif model.get("spacing"):
        wanted = [*model["spacing"], spacing[2]][:3]
        size = [resampled_size(n, s, w) for n, s, w in zip(oriented, spacing, wanted, strict=True)]
    else:
        size = oriented
    new_spacing = tuple(s * n / m for s, n, m in zip(spacing, oriented, size, strict=True))
    x, y, z = (int(n) for n in size)
    return Canonical(image.shape, axes, flips, (x, y, z), new_spacing)


def resampled_size(count: int, spacing: float, wanted: float) -> int:
    """Samples of size `wanted` that cover `count` samples of size `spacing`, at least 1.

    The boundary lies at x.499 instead of x.5: halves are frequent (odd counts, halved spacing), and there a rounding
    difference of 1e-8 between two readers would change the grid.
    """
    return max(1, int(np.floor(count * spacing / wanted + 0.501)))


def closest_orientation(matrix, orientation: str) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Permutation and flips that bring the array's axes closest to `orientation`, such as "RAS"."""
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    cosines = np.empty((3, 3))  # [canonical axis, image axis], signed
    for n, letter in enumerate(orientation):
        world, sign = ANATOMY[letter]
        cosines[n] = sign * directions[world]
    agreement = np.round(np.abs(cosines), 5)  # equal at 45 degrees for every reader; then the first permutation wins
    axes = max(itertools.permutations(range(3)), key=lambda p: sum(agreement[n, p[n]] for n in range(3)))
    a, b, c = axes
    return (a, b, c), (bool(cosines[0, a] < 0), bool(cosines[1, b] < 0), bool(cosines[2, c] < 0))


# --- several images --------------------------------------------------------------------------------------------------


def same_grid(first: Image, second: Image) -> bool:
    """Whether two images share shape and place (to 0.1 % of a voxel)."""
    tolerance = 1e-3 * min(first.spacing)
    return first.shape == second.shape and np.allclose(first.ijk_to_ras, second.ijk_to_ras, rtol=0, atol=tolerance)


def resample_to_grid(image: Image, reference: Image) -> np.ndarray:
    """`image` on the grid of `reference`: float32 (C, I, J, K), trilinear; outside its extent its lowest value.

    Works on planes of the first axis, so that coordinates never exist for the whole volume.
    """
    step = np.round(np.linalg.inv(image.ijk_to_ras) @ reference.ijk_to_ras, 6)  # same for every reader
    result = np.empty((len(image.array), *reference.shape), np.float32)
    low = image.array.reshape(len(image.array), -1).min(axis=1).astype(np.float32)
    grid = np.indices(reference.shape[1:]).reshape(2, -1)
    last = np.array(image.shape)[:, None] - 1
    for row in range(reference.shape[0]):
        place = step[:3, :1] * row + step[:3, 1:3] @ grid + step[:3, 3:]
        inside = ((place >= -0.5) & (place <= last + 0.5)).all(axis=0)
        base = np.floor(np.clip(place, 0, last)).astype(np.int64)
        fraction = (np.clip(place, 0, last) - base).astype(np.float32)
        value = np.zeros((len(image.array), grid.shape[1]), np.float32)
        for corner in itertools.product((0, 1), repeat=3):
            i, j, k = np.minimum(base + np.array(corner)[:, None], last)
            share = np.prod([f if c else 1 - f for f, c in zip(fraction, corner, strict=True)], axis=0)
            value += image.array[:, i, j, k] * share
        result[:, row] = np.where(inside, value, low[:, None]).reshape(-1, *reference.shape[1:])
    return result


def stack_channels(images: list[Image]) -> Image:
    """One image of all channels on the first image's grid; others are resampled to it, with a notice."""
    first = images[0]
    arrays, notices = [first.array], list(first.notices)
    for number, image in enumerate(images[1:], start=2):
        notices += image.notices
        if same_grid(first, image):
            arrays.append(image.array)
        else:
            arrays.append(resample_to_grid(image, first))
            notices.append(f"Volume {number} lies on another grid and was resampled to the grid of the first.")
        if image.reference and first.reference and image.reference != first.reference:
            notices.append(
                f"Volume {number} belongs to another frame of reference than the first, as scans of another session do; "
                "that they lie upon each other is taken for granted."
            )
    array = first.array if len(arrays) == 1 else np.concatenate(arrays)
    return replace(
        first,
        array=array,
        notices=tuple(notices),
        checked=all(image.checked for image in images),
        modalities=tuple(dict.fromkeys(itertools.chain(*(image.modalities for image in images)))),
    )
