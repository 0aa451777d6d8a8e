"""The voxels of DICOM images: decoded by pydicom where they are not compressed (or by runs), else by SimpleITK's GDCM.

GDCM gets each compressed image alone, in a small file without scaling and without the rest of the header, so that all
that depends on a header (signs, bits, scaling, inverted greys) is done here, for every image by its own attributes.
Source: DICOM PS3.3 sections C.7.6.3 and C.11.1, PS3.5 section 8.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...files import working_folder
from ..axes import channels_first
from ..formats.unpacking import Rest
from ..geometry import ImageError
from .files import EXPORT_AGAIN, read_whole
from .frames import Frame, named
from .grid import Grid
from .kinds import STORAGE

BY_GDCM = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91)}  # JPEG, -LS, 2000
SECONDARY_CAPTURE = f"{STORAGE}7"
LUT_END = (1 << 16) - 1
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
GREY = ("MONOCHROME1", "MONOCHROME2")
IN_UNITS = ("CT", "PT")  # whose values are Hounsfield units or activities, whatever they look like
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
TO_GDCM = (
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "BitsAllocated", "BitsStored", "HighBit"),
    "PixelRepresentation",
)
PADDING = "Voxels of {name} outside what was scanned hold the padding value, which is brighter than all others there."
MORE_IMAGES = "{name} holds {count} more than its header names (NumberOfFrames), which were not used."
INVERTED = (
    "{name} is stored with black and white exchanged (MONOCHROME1); its grey values were inverted, as Slicer does."
)


@dataclass(frozen=True)
class Format:
    """How the pixels of an image are stored."""

    photometric: str
    samples: int
    allocated: int
    stored: int
    signed: bool
    floats: bool

    @staticmethod
    def of(frame: Frame) -> Format:
        """The format of a frame; ImageError names what cannot be used."""
        get, name = frame.attributes, frame.file.name
        photometric, samples = get.text("PhotometricInterpretation"), get.whole("SamplesPerPixel", 1)
        allocated = get.whole("BitsAllocated")
        stored = get.whole("BitsStored", allocated)
        grey = samples == 1 and photometric in (*GREY, "PALETTE COLOR")
        if not grey and not (samples == 3 and photometric in COLOURS):
            raise ImageError(
                f"{name} has {samples} samples in each pixel as '{photometric}' "
                f"({named('PhotometricInterpretation')}), which cannot be read.",
                "Export it again as MONOCHROME2 or RGB.",
            )
        floats = get.get("BitsStored") is None and allocated in (32, 64)
        if (allocated not in (8, 16, 32) and not floats) or not 0 < stored <= allocated:
            raise ImageError(
                f"{name} has {stored} of {allocated} bits in each pixel ({named('BitsAllocated')}), which cannot be read.",
                EXPORT_AGAIN,
            )
        return Format(photometric, samples, allocated, stored, get.whole("PixelRepresentation") == 1, floats)

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the greatest value that can be stored."""
        if self.signed:
            return -(1 << (self.stored - 1)), (1 << (self.stored - 1)) - 1
        return 0, (1 << self.stored) - 1

    @property
    def colour_bits(self) -> int:
        """Bits of a colour, 8 for those from a palette; 0 for greys."""
        return 0 if self.channels == 1 else 8 if self.samples == 1 else self.allocated

    @property
    def channels(self) -> int:
        """Components of a voxel: 3 for colours."""
        return 1 if self.photometric in GREY else 3


def voxels_of(grid: Grid, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The voxels (C, I, J, K) of a grid, each image by its own scaling, and notices.

    The type is the smallest whole one that holds whatever could be stored, or float32 where a scaling has fractions.
    """
    frames = grid.frames
    formats = [Format.of(frame) for frame in frames]
    refuse_mixture(frames, formats, name)
    notices = refuse_or_tell_inverted(frames, formats, name)
    result = np.empty(
        (len(frames), frames[0].rows, frames[0].columns, formats[0].channels), result_type(frames, formats)
    )
    bright_padding = False
    longer: dict[str, str] = {}
    with working_folder(Path(tempfile.gettempdir()), "prosma-dicom-") as folder:
        numbers: dict[Path, dict[int, int]] = {}  # for each file: index of a frame in it -> its slice
        for k, frame in enumerate(frames):
            numbers.setdefault(frame.file, {})[frame.index] = k
        for file, wanted in numbers.items():
            dataset = read_whole(file)
            form = formats[next(iter(wanted.values()))]
            for index, pixels in stored_images(dataset, file, form, sorted(wanted), folder):
                k = wanted[index]
                bright_padding |= form.channels == 1 and has_bright_padding(pixels, frames[k])
                result[k] = real_values(pixels, frames[k], form, dataset)
            if told := left_over(dataset):
                longer[file.name] = told
    notices += told_once(longer)
    notices += (PADDING.format(name=name),) if bright_padding else ()
    if grid.places is not None:
        result = resampled(result, grid)
    return channels_first(result), notices


def left_over(dataset) -> str:
    """What a file's voxels hold beyond those of all its images, as a template with {name}; "" for nothing.

    Compressed images are counted where the file says where each begins. Uncompressed ones may end with one byte that makes
    their number even.
    """
    from pydicom.encaps import parse_basic_offsets

    if "PixelData" not in dataset:
        return ""
    images = int(dataset.get("NumberOfFrames") or 1)
    if dataset["PixelData"].is_undefined_length:
        more = len(parse_basic_offsets(dataset.PixelData)) - images
        count = f"{more} image{'s' if more > 1 else ''}"
        return MORE_IMAGES.format(name="{name}", count=count) if more > 0 else ""
    bits = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated
    more = len(dataset.PixelData) - images * bits // 8
    return "".join(Rest(more).told("{name}")) if more > 1 else ""


def told_once(longer: dict[str, str]) -> tuple[str, ...]:
    """One notice for all files that hold more than their headers account for."""
    if not longer:
        return ()
    first, *others = longer
    return (longer[first].format(name=f"{first} (as do {len(others)} other files)" if others else first),)


def refuse_mixture(frames, formats, name: str) -> None:
    """ImageError where some slices are grey and some coloured, or colours have 8 and 16 bits."""
    first = formats[0]
    for frame, form in zip(frames, formats, strict=True):
        if form.channels != first.channels or form.colour_bits != first.colour_bits:
            raise ImageError(
                f"{frame.file.name} is '{form.photometric}' of {form.stored} bits and other slices of {name} are "
                f"'{first.photometric}' of {first.stored} ({named('PhotometricInterpretation')}).",
                "Give the files of one kind in a folder of their own.",
            )


def refuse_or_tell_inverted(frames, formats, name: str) -> tuple[str, ...]:
    """Inverted greys: a notice; ImageError where values are units, which must not be inverted, though Slicer does."""
    inverted = [frame for frame, form in zip(frames, formats, strict=True) if form.photometric == "MONOCHROME1"]
    if not inverted:
        return ()
    first = inverted[0]
    if first.attributes.text("Modality") in IN_UNITS:
        raise ImageError(
            f"{first.file.name} is a {first.attributes.text('Modality')} image stored with black and white exchanged "
            f"(MONOCHROME1 in {named('PhotometricInterpretation')}); programs disagree whether its values are inverted.",
            "Set that attribute to MONOCHROME2 if the values are right as they are stored.",
        )
    return (INVERTED.format(name=name),)


def result_type(frames, formats) -> np.dtype:
    """The type that holds every value that these images could have."""
    low, high = 0.0, 0.0
    for frame, form in zip(frames, formats, strict=True):
        if form.channels == 3:
            return np.dtype(f"u{form.colour_bits // 8}")
        if form.floats or frame.slope != int(frame.slope) or frame.intercept != int(frame.intercept):
            return np.dtype(np.float32)
        scaled = np.array(form.limits, float) * frame.slope + frame.intercept
        ends = (0, LUT_END) if frame.attributes.get("ModalityLUTSequence") else scaled
        low, high = min(low, *ends), max(high, *ends)
    for kind in (np.uint8, np.int16, np.uint16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.float32)


def stored_images(dataset, file: Path, form: Format, indices: list[int], folder: Path):
    """Pairs of index and pixels (rows, columns, samples) as stored, colours as RGB. ImageError where they are damaged."""
    syntax = transfer_syntax(dataset)
    if not any(keyword in dataset for keyword in PIXEL_KEYWORDS):
        raise ImageError(f"{file.name} is cut off: it has no voxels ({named('PixelData')}).", EXPORT_AGAIN)
    try:
        if syntax in BY_GDCM:
            images = decoded_by_gdcm(dataset, indices, folder / "image.dcm")
        else:
            images = decoded_by_pydicom(dataset, syntax, file, indices)
        shape = dataset.Rows, dataset.Columns, form.samples
        for index, pixels in zip(indices, images, strict=True):
            yield index, pixels.reshape(shape)
    except ImageError:
        raise
    except Exception:  # whatever the decoders stumble over
        raise ImageError(f"{file.name} is damaged or cut off: its voxels cannot be read.", EXPORT_AGAIN) from None


def transfer_syntax(dataset):
    """How a file's voxels are encoded; by how its elements were read where the file does not say it."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return dataset.file_meta.TransferSyntaxUID


def decoded_by_pydicom(dataset, syntax, file: Path, indices: list[int]):
    """Images whose voxels are not compressed, compressed by runs, or for which pydicom finds a decoder."""
    from pydicom.pixels import get_decoder, iter_pixels

    try:
        known = get_decoder(syntax).is_available
    except NotImplementedError:
        known = False
    if not known:
        raise ImageError(
            f"{file.name} is compressed as {syntax.name}, for which there is no decoder here.",
            "Install one for pydicom (python -m pip install pylibjpeg pylibjpeg-openjpeg), or export it uncompressed.",
        )
    stored = dataset.get("BitsStored")
    beneath = 0 if stored is None else max(0, dataset.get("HighBit", stored - 1) + 1 - stored)
    if beneath:  # bits below the value, as in very old files
        dataset.BitsStored = stored + beneath
    for pixels in iter_pixels(dataset, indices=indices):
        yield pixels >> beneath if beneath else pixels


def decoded_by_gdcm(dataset, indices: list[int], path: Path) -> np.ndarray:
    """Compressed images by SimpleITK, from a file at `path` that holds nothing but them."""
    import SimpleITK as sitk
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.uid import UID, generate_uid

    small = Dataset()
    small.file_meta = FileMetaDataset()
    small.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    small.SOPClassUID = small.file_meta.MediaStorageSOPClassUID = UID(SECONDARY_CAPTURE)
    small.SOPInstanceUID = small.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword in TO_GDCM:
        if keyword in dataset:
            small[keyword] = dataset[keyword]
    grey = dataset.SamplesPerPixel == 1
    small.PhotometricInterpretation = "MONOCHROME2" if grey else dataset.PhotometricInterpretation
    count = int(dataset.get("NumberOfFrames") or 1)
    if count > 1:
        images = enumerate(generate_frames(dataset.PixelData, number_of_frames=count))
        small.PixelData = encapsulate([image for index, image in images if index in set(indices)])
        small.NumberOfFrames = len(indices)
    else:
        small.PixelData = dataset.PixelData
    small["PixelData"].is_undefined_length = True
    small.save_as(path, enforce_file_format=True)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    return pixels.reshape(len(indices), dataset.Rows, dataset.Columns, dataset.SamplesPerPixel)


def real_values(pixels: np.ndarray, frame: Frame, form: Format, dataset) -> np.ndarray:
    """Pixels (rows, columns, samples) as stored -> (rows, columns, channels) in the units of the image."""
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    if form.photometric == "PALETTE COLOR":
        colours = apply_color_lut(pixels[..., 0], dataset)[..., :3]
        return (colours >> 8 if colours.dtype.itemsize > 1 else colours).astype(np.uint8)
    if form.channels == 3 or form.floats:
        return pixels
    if form.photometric == "MONOCHROME1":
        pixels = sum(form.limits) - pixels.astype(np.int64)
    if frame.attributes.get("ModalityLUTSequence"):
        return apply_modality_lut(pixels, dataset)
    if frame.slope == 1 and frame.intercept == 0:
        return pixels
    if frame.slope == 1 and frame.intercept == int(frame.intercept) and pixels.dtype.itemsize < 4:
        return np.add(pixels, int(frame.intercept), dtype=np.int64 if abs(frame.intercept) > LUT_END else np.int32)
    return pixels * frame.slope + frame.intercept


def has_bright_padding(pixels: np.ndarray, frame: Frame) -> bool:
    """Whether pixels hold the padding value and all others are smaller."""
    padding = frame.attributes.number("PixelPaddingValue")
    outside = pixels == padding if padding is not None else np.zeros(1, bool)
    return bool(outside.any() and not outside.all() and pixels[~outside].max() < padding)


def resampled(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Slices (K, J, I, C) at `grid.places` on the grid's even slices, linear in between."""
    places = np.arange(len(values)) if grid.places is None else grid.places
    result = np.empty((grid.slices, *values.shape[1:]), values.dtype)
    for slice_ in range(grid.slices):
        upper = int(np.clip(np.searchsorted(places, slice_ - 1e-6), 1, len(values) - 1))
        below, above = places[upper - 1], places[upper]
        share = float(np.clip((slice_ - below) / (above - below), 0, 1))
        mixed = (1 - share) * values[upper - 1].astype(np.float64) + share * values[upper]
        result[slice_] = np.rint(mixed) if values.dtype.kind in "iu" else mixed
    return result
