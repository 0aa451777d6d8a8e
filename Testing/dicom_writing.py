"""DICOM files for tests, written by pydicom, and what they say by pydicom's own reading and the standard's equations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from prosma.image.geometry import Image

STORAGE = "1.2.840.10008.5.1.4.1.1."
AXIAL = (1, 0, 0, 0, 1, 0)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.96, 0.28, 0, -0.224, 0.768, 0.6)
WRITTEN = ("Content", "InstanceCreation", "StructureSet")
CLASSES = {"CT": "2", "MR": "4", "PT": "128", "US": "6.1", "CR": "1", "OT": "7"}


def noise(shape=(12, 16, 20), seed=0, high=1000) -> np.ndarray:
    """Whole numbers (K, J, I) from 0 to `high`."""
    return np.random.default_rng(seed).integers(0, high, shape)


def data_set(pixels: np.ndarray, modality="MR", storage: str | None = None, **attributes) -> Dataset:
    """An image of one plane (rows, columns[, 3]) or of frames (frames, rows, columns), without a place."""
    ds, meta = Dataset(), FileMetaDataset()
    ds.file_meta = meta
    meta.MediaStorageSOPClassUID = ds.SOPClassUID = STORAGE + (storage or CLASSES.get(modality, "7"))
    meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.PatientName, ds.PatientID = "Kestrel^Ophelia", "SECRET-77"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "1.2.3", "1.2.3.4", modality
    colour = pixels.shape[-1] == 3 and pixels.ndim > 2
    ds.SamplesPerPixel = 3 if colour else 1
    ds.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        ds.PlanarConfiguration = 0
    shape = pixels.shape[:-1] if colour else pixels.shape
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    ds.Rows, ds.Columns = shape[-2:]
    bits = 8 * pixels.dtype.itemsize if pixels.dtype.itemsize < 8 else 16
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit = bits - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.astype(f"<{'i' if pixels.dtype.kind == 'i' else 'u'}{bits // 8}").tobytes()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def place(ds: Dataset, position, axes=AXIAL, spacing=(0.8, 0.9), thickness=2.5) -> Dataset:
    """`ds` with a position, directions, mm between columns and between rows, and a thickness."""
    ds.ImagePositionPatient = [float(value) for value in position]
    ds.ImageOrientationPatient = [float(value) for value in axes]
    ds.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    ds.SliceThickness = float(thickness)
    return ds


def write_series(
    folder: Path,
    volume,
    spacing=(0.8, 0.9, 2.5),
    axes=AXIAL,
    origin=(-30.0, 12.0, 5.0),
    edit=None,
    prefix="im",
    **attributes,
) -> list[Path]:
    """One file for each plane of `volume` (K, J, I); `edit(ds, k)` changes each before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    normal, files = np.cross(axes[:3], axes[3:]), []
    for k, plane in enumerate(volume):
        ds = data_set(plane, **attributes)
        ds.InstanceNumber = k + 1
        place(ds, np.array(origin) + k * spacing[2] * normal, axes, spacing[:2], spacing[2])
        if edit is not None:
            edit(ds, k)
        files.append(write(folder / f"{prefix}{k:03d}.dcm", ds))
    return files


def write(path: Path, ds: Dataset) -> Path:
    """`ds` as a file at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


def item(**attributes) -> Sequence:
    """A sequence of one item."""
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Sequence([ds])


def enhanced(
    volume, places, axes=AXIAL, spacing=(0.8, 0.9), modality="MR", slopes=None, groups=None, storage="4.1", **attributes
) -> Dataset:
    """A multi-frame image: frame k lies `places[k]` mm along the normal; `axes` one for all, or one for each frame.

    `slopes`: one for each frame. `groups(frame, k)` adds to the functional groups of frame k.
    """
    ds = data_set(volume, modality, storage, **attributes)
    several = np.ndim(axes) > 1
    shared = Dataset()
    shared.PixelMeasuresSequence = item(PixelSpacing=[spacing[1], spacing[0]], SliceThickness=2.5)
    ds.SharedFunctionalGroupsSequence, frames = Sequence([shared]), []
    for k in range(len(volume)):
        frame, own = Dataset(), [float(value) for value in (axes[k] if several else axes)]
        position = np.array([-5.0, 7.0, 3.0]) + places[k] * np.cross(own[:3], own[3:])
        frame.PlanePositionSequence = item(ImagePositionPatient=[round(float(value), 6) for value in position])
        frame.PlaneOrientationSequence = item(ImageOrientationPatient=own)
        if slopes is not None:
            frame.PixelValueTransformationSequence = item(
                RescaleSlope=str(slopes[k]), RescaleIntercept="0", RescaleType="US"
            )
        if groups is not None:
            groups(frame, k)
        frames.append(frame)
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return ds


# --- what the files say ---------------------------------------------------------------------------------------------


def planes_of(path: Path):
    """(values, position, row, column, (mm between columns, mm between rows)) of each image in a file, by its tags."""
    ds = pydicom.dcmread(path)
    pixels = ds.pixel_array
    if "PerFrameFunctionalGroupsSequence" not in ds:
        values = pixels * float(ds.get("RescaleSlope", 1)) + float(ds.get("RescaleIntercept", 0))
        yield values, ds.ImagePositionPatient, ds.ImageOrientationPatient, ds.PixelSpacing
        return
    shared = ds.SharedFunctionalGroupsSequence[0]
    for number, frame in enumerate(ds.PerFrameFunctionalGroupsSequence):

        def group(name, frame=frame):
            return (frame.get(name) or shared.get(name) or [Dataset()])[0]

        scale = group("PixelValueTransformationSequence")
        values = pixels[number] * float(scale.get("RescaleSlope", 1)) + float(scale.get("RescaleIntercept", 0))
        orientation = group("PlaneOrientationSequence").ImageOrientationPatient
        position = group("PlanePositionSequence").ImagePositionPatient
        yield values, position, orientation, group("PixelMeasuresSequence").PixelSpacing


def assert_true(image: Image, files, frames=None, mm: float = 0.01) -> None:
    """Each pixel of each image in `files` (of each of the numbers `frames`) has its value at its place in `image`."""
    count = 0
    for file in files:
        for number, (values, position, orientation, spacing) in enumerate(planes_of(file)):
            if frames is not None and number not in frames:
                continue
            rows, columns = np.indices(values.shape[:2])
            step_right = np.array(orientation[:3], float) * float(spacing[1])
            step_down = np.array(orientation[3:], float) * float(spacing[0])
            lps = np.array(position, float) + columns[..., None] * step_right + rows[..., None] * step_down
            ras = np.concatenate([lps * [-1, -1, 1], np.ones((*rows.shape, 1))], axis=-1)
            index = np.rint(ras @ np.linalg.inv(image.ijk_to_ras).T)[..., :3].astype(int)
            assert (index >= 0).all() and (index < image.shape).all(), f"{file.name} {number} lies outside"
            there = np.concatenate([index, np.ones((*rows.shape, 1))], axis=-1) @ image.ijk_to_ras.T
            assert np.abs(there - ras).max() < mm, f"{file.name} {number} lies elsewhere"
            found = image.array[:, index[..., 0], index[..., 1], index[..., 2]]
            wanted = np.moveaxis(values, -1, 0) if values.ndim == 3 else values[None]
            np.testing.assert_allclose(found, wanted, rtol=1e-6, err_msg=f"{file.name} {number}")
            count += 1
    assert count, "nothing was compared"


def without_times(path: Path) -> bytes:
    """The bytes of a file; of a DICOM object all that it says, but for when it was written."""
    if path.suffix != ".dcm":
        return path.read_bytes()
    ds = pydicom.dcmread(path)
    for keyword in (f"{what}{part}" for what in WRITTEN for part in ("Date", "Time")):
        if keyword in ds:
            del ds[keyword]
    for device in ds.get("ContributingEquipmentSequence") or ():
        del device.ContributionDateTime
    return ds.to_json().encode()
