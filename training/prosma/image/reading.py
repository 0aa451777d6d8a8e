"""Images and label maps from files. SimpleITK is imported only when something is read: the worker never needs it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path

import numpy as np

from .axes import channels_first
from .dicom.files import is_dicom
from .dicom.reading import read_dicom
from .formats import gipl, metaimage, mgh, nifti, nrrd
from .formats.others import refuse_other_formats
from .formats.pictures import PHOTOGRAPHS, read_picture
from .geometry import FUNCTIONAL_REMEDY, LPS_TO_RAS, Image, ImageError, checked_image, stack_channels
from .itk_paths import itk_path

IMAGE_SUFFIXES = (
    *(".nrrd", ".nhdr", ".nii.gz", ".nii", ".hdr", ".mgz", ".mgh", ".mha", ".mhd", ".gipl.gz", ".gipl", ".dcm"),
    *PHOTOGRAPHS,
)


Reader = Callable[[Path], Image]
KNOWN_ENDINGS = tuple(dict.fromkeys((*IMAGE_SUFFIXES, *nifti.SUFFIXES)))  # also of the other file of a pair
READERS: dict[
    tuple[str, ...], Callable[[Path, Reader], Image]
] = {  # by endings; each gets the path, and what reads by ITK
    nifti.SUFFIXES: nifti.read_nifti,
    mgh.SUFFIXES: mgh.read_mgh,
    metaimage.SUFFIXES: metaimage.read_metaimage,
    nrrd.SUFFIXES: nrrd.read_nrrd,
    gipl.SUFFIXES: gipl.read_gipl,
    PHOTOGRAPHS: read_picture,
}


def read_image(
    paths: str | PathLike | Sequence[str | PathLike], series: str | int | Sequence[str | int] | None = None
) -> Image:
    """The image in one file or DICOM folder, or in several of them: their channels in order, on the first one's grid.

    Colours and vectors become channels, a 2D image gets K = 1. `series` chooses among several volumes in a DICOM file
    or folder: a number as the error that lists them has it, a UID or a description; or one for each path, or several of
    one path, which become channels. ImageError says why something cannot be used.

    >>> import SimpleITK
    >>> scan = SimpleITK.Image(40, 50, 20, SimpleITK.sitkInt16)
    >>> scan.SetSpacing([0.5, 0.5, 2.0])
    >>> SimpleITK.WriteImage(scan, "scan.nrrd")
    >>> image = read_image("scan.nrrd")
    >>> image.array.shape, image.spacing  # (C, I, J, K), mm
    ((1, 40, 50, 20), (0.5, 0.5, 2.0))
    >>> read_image(["scan.nrrd", "scan.nrrd"]).array.shape
    (2, 40, 50, 20)
    """
    pairs = paired(paths, series)
    return stack_channels([checked_image(_read_one(path, which)) for path, which in pairs])


def paired(
    paths: str | PathLike | Sequence[str | PathLike], series: str | int | Sequence[str | int] | None
) -> list[tuple[Path, str | int | None]]:
    """Each channel's path with the series that is chosen there; arguments and ImageError as for `read_image`."""
    paths = [paths] if isinstance(paths, (str, PathLike)) else list(paths)
    if not paths:
        raise ImageError("No image was given.", "Give at least one file.")
    chosen: list = list(series) if isinstance(series, (list, tuple)) else [series]
    if len(paths) == 1:
        paths *= len(chosen)
    elif len(chosen) == 1:
        chosen *= len(paths)
    if len(chosen) != len(paths):
        raise ImageError(
            f"{len(chosen)} series were chosen for {len(paths)} images.", "Choose one for all, or one for each."
        )
    if series is not None and not any(is_dicom_path(Path(path)) for path in paths):
        raise ImageError("A series was chosen, but none of the images is DICOM.", "Leave out the choice of a series.")
    return list(zip(map(Path, paths), chosen, strict=True))


def is_dicom_path(path: Path) -> bool:
    """Whether a path is a DICOM file, or a folder."""
    return path.is_dir() or (path.is_file() and is_dicom(path))


def read_labels(path: str | PathLike) -> Image:
    """A label map: an Image with one channel of whole numbers (array[0] is (I, J, K) of an integer type)."""
    image = _read_one(Path(path))
    if len(image.array) != 1:
        raise ImageError(
            f"{Path(path).name} has {len(image.array)} layers or components; a label map has one.",
            "Save a picture as grey, and segments as one label map without overlaps.",
        )
    if image.array.dtype.kind == "f" and np.isnan(image.array).any():
        raise ImageError(
            f"{Path(path).name} holds voxels that are no numbers (NaN); nobody can tell which label they have.",
            "Save it with 0 where nothing is marked.",
        )
    image = checked_image(image)
    if image.array.dtype.kind == "f":
        whole = np.rint(image.array)
        if np.abs(whole - image.array).max() > 1e-3:
            raise ImageError(
                f"{Path(path).name} holds fractions; a label map holds whole numbers.", "Choose another file."
            )
        image = replace(image, array=whole.astype(np.int32))
    return image


def _read_one(path: Path, series: str | int | None = None) -> Image:
    if not path.exists():
        raise ImageError(f"{path} does not exist.", "Check its name.")
    if path.is_file() and path.stat().st_size == 0:
        raise ImageError(f"{path.name} is empty: it has no bytes.", "Copy or export it again.")
    if is_dicom_path(path):
        return read_dicom(path, series)
    refuse_other_formats(path, KNOWN_ENDINGS)
    name = path.name.lower()
    read = next((read for suffixes, read in READERS.items() if name.endswith(suffixes)), None)
    return read(path, read_with_itk) if read else read_with_itk(path)


def read_with_itk(path: Path) -> Image:
    """The image that SimpleITK reads from one file."""
    with itk_errors(path.name) as sitk:
        refuse_unusable(sitk, path)
        return to_image(sitk.ReadImage(itk_path(path)))


@contextlib.contextmanager
def itk_errors(name: str):
    """Gives SimpleITK, silent; its exceptions become one sentence."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield sitk
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].split("ERROR:")[-1].strip()
        raise ImageError(
            f"{name} could not be read: it is damaged, incomplete or of an unknown format ({reason}).",
            f"Copy or export it again. Known formats: DICOM folders, {', '.join(IMAGE_SUFFIXES)}.",
        ) from None


def refuse_unusable(sitk, path: Path) -> None:
    """What the header alone shows to be unusable, before any voxel is read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(itk_path(path))
    reader.ReadImageInformation()
    sizes = reader.GetSize()
    if any(size > 1 for size in sizes[3:]):
        raise ImageError(
            f"{path.name} has {len(sizes)} dimensions ({' x '.join(map(str, sizes))}), such as a time series; "
            "only 2D and 3D volumes can be segmented.",
            FUNCTIONAL_REMEDY,
        )
    if 0 in sizes:
        raise ImageError(f"{path.name} is empty: it has no voxels.", "Choose another volume.")
    if "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
        raise ImageError(
            f"{path.name} has complex numbers as voxels.", "Save its magnitude as a volume and segment that."
        )


def to_image(picture) -> Image:
    """A SimpleITK image as (C, I, J, K) and IJK-to-RAS; the array is a view in the file's own voxel order."""
    import SimpleITK as sitk

    dimension, components = picture.GetDimension(), picture.GetNumberOfComponentsPerPixel()
    array = sitk.GetArrayFromImage(picture)
    if components == 1:
        array = array[..., None]
    while array.ndim > 4:  # sizes of 1 beyond the third axis; others have been refused
        array = array[0]
    if dimension == 2:
        array = array[None]
    array = channels_first(array)
    axes = min(dimension, 3)
    matrix = np.eye(4)
    direction = np.array(picture.GetDirection()).reshape(dimension, dimension)[:axes, :axes]
    matrix[:axes, :axes] = direction * np.array(picture.GetSpacing()[:axes])
    matrix[:axes, 3] = picture.GetOrigin()[:axes]
    return Image(array, LPS_TO_RAS @ matrix)
