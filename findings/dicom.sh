#!/usr/bin/env bash
# What widely used readers do with valid DICOM series, seen with the versions pinned below. Makes its own files (random
# or marked voxels, no patient), needs Python 3.10 to 3.13 and a package index, and fails if a behaviour changes.
#
# 1. SimpleITK: a series whose first slice has slope 1 and a later one slope 40 is int16: 160000 becomes 28928.
# 2. SimpleITK: frames of an Enhanced MR file out of spatial order stay so, on a grid of 1 x 1 x 1 mm.
# 3. SimpleITK: colours of 16 bits in RLE come out with their bytes in the wrong channels.
# 4. SimpleITK: DoseGridScaling of a dose grid is not applied.
# 5. dcm2niix: the plain file of a CT with tilted gantry has no tilt; a mark lies 3.6 mm off. In the file ..._Tilt_1 it
#    lies 0.6 mm off, two thirds of a pixel.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    SimpleITK==2.5.7 pydicom==3.0.2 nibabel==5.4.2 "numpy>=1.26" dcm2niix==1.0.20260724
cat > facts.py <<'EOF'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

CLASS = "1.2.840.10008.5.1.4.1.1."
failed = []


def data_set(pixels, storage, modality):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CLASS + storage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality, ds.PatientID = "1.2.3", "1.2.3.4", modality, "T"
    ds.StudyDate, ds.StudyTime, ds.SeriesNumber = "20260101", "100000", 1
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3
    ds.SamplesPerPixel, ds.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        ds.PlanarConfiguration = 0
    shape = pixels.shape[:-1] if colour else pixels.shape
    ds.Rows, ds.Columns = shape[-2:]
    if len(shape) == 3:
        ds.NumberOfFrames = shape[0]
    bits = 8 * pixels.dtype.itemsize
    ds.BitsAllocated = ds.BitsStored = bits
    ds.HighBit, ds.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    ds.PixelData = pixels.tobytes()
    return ds


def item(**attributes):
    ds = Dataset()
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return Sequence([ds])


def place(ds, position, spacing=(0.9, 0.8)):
    ds.ImagePositionPatient = [float(value) for value in position]
    ds.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    ds.PixelSpacing, ds.SliceThickness = list(spacing), 2.5
    return ds


def fact(text, seen, expected):
    print(f"{text}\n    seen {seen}, expected here {expected}")
    if seen != expected:
        failed.append(text)


for name in ("SimpleITK", "pydicom", "nibabel", "dcm2niix"):
    print(name, version(name))
sitk.ProcessObject.SetGlobalWarningDisplay(False)

files = []
for k in range(5):
    ds = place(data_set(np.full((8, 9), 4000, np.int16), "2", "CT"), (0, 0, 2.5 * k))
    ds.InstanceNumber, ds.RescaleSlope, ds.RescaleIntercept = k + 1, ("40" if k == 3 else "1"), "0"
    files.append(f"slope{k}.dcm")
    ds.save_as(files[-1], enforce_file_format=True)
volume = sitk.ReadImage(files)
fact("1. SimpleITK, slope 40 in the fourth slice (right: 160000)", (volume.GetPixelIDTypeAsString(), volume[0, 0, 3]),
     ("16-bit signed integer", 28928))

frames = np.stack([np.full((8, 9), k, np.uint16) for k in range(6)])
ds = data_set(frames, "4.1", "MR")
order = [0, 5, 1, 4, 2, 3]
shared = Dataset()
shared.PixelMeasuresSequence = item(PixelSpacing=[0.9, 0.8], SliceThickness=2.5)
shared.PlaneOrientationSequence = item(ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0])
ds.SharedFunctionalGroupsSequence = Sequence([shared])
groups = []
for k in range(6):
    group = Dataset()
    group.PlanePositionSequence = item(ImagePositionPatient=[0.0, 0.0, 2.5 * order[k]])
    groups.append(group)
ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
ds.save_as("enhanced.dcm", enforce_file_format=True)
volume = sitk.ReadImage("enhanced.dcm")
fact("2. SimpleITK, frames out of order (right: 0.8 x 0.9 x 2.5 mm, frames at 0 2 4 5 3 1)",
     (volume.GetSpacing(), [volume[0, 0, k] for k in range(6)]), ((1.0, 1.0, 1.0), [0, 1, 2, 3, 4, 5]))

ds = data_set(np.tile(np.array([0x1122, 0x3344, 0x5566], np.uint16), (64, 64, 1)), "7", "OT")
ds.compress(RLELossless)
ds.save_as("rle.dcm", enforce_file_format=True)
right = [f"{value:04x}" for value in pixel_array("rle.dcm")[0, 0]]
fact(f"3. SimpleITK, 16-bit colours in RLE (right: {right})",
     [f"{value:04x}" for value in sitk.ReadImage("rle.dcm")[0, 0, 0]], ["5544", "1166", "3322"])

ds = place(data_set(np.full((3, 8, 9), 1000, np.uint16), "481.2", "RTDOSE"), (0, 0, 0))
ds.DoseGridScaling, ds.GridFrameOffsetVector, ds.FrameIncrementPointer = "0.001", [0.0, 2.5, 5.0], 0x3004000C
ds.save_as("dose.dcm", enforce_file_format=True)
fact("4. SimpleITK, 1000 at DoseGridScaling 0.001 (right: 1)", sitk.ReadImage("dose.dcm")[0, 0, 0], 1000)

Path("tilted").mkdir()
Path("out").mkdir()
voxels = np.zeros((12, 64, 64), np.int16)
voxels[5:8, 28:32, 18:22] = 1000
for k, plane in enumerate(voxels):
    ds = place(data_set(plane, "2", "CT"), (-30, 12 + 0.6 * k, 2.5 * k))
    ds.InstanceNumber, ds.GantryDetectorTilt, ds.Manufacturer = k + 1, 13.4957, "SIEMENS"
    ds.save_as(f"tilted/{k:02d}.dcm", enforce_file_format=True)
program = Path(sys.executable).parent / "dcm2niix"
subprocess.run([program, "-o", "out", "-f", "out", "-z", "n", "tilted"], check=True, capture_output=True)
right = np.array([30 - 19.5 * 0.8, -(12 + 6 * 0.6 + 29.5 * 0.9), 15.0])
for name, expected in (("out.nii", 3.6), ("out_Tilt_1.nii", 0.6)):
    image = nibabel.load(f"out/{name}")
    weights = np.asarray(image.dataobj, float)
    weights = np.where(weights - weights.min() > 400, weights - weights.min(), 0)
    centre = [float((weights * axis).sum() / weights.sum()) for axis in np.indices(weights.shape)]
    off = float(np.linalg.norm((image.affine @ [*centre, 1])[:3] - right))
    fact(f"5. dcm2niix, a mark in a tilted CT, mm off its place in {name}", round(off, 1), expected)

sys.exit(f"changed: {failed}" if failed else 0)
EOF
env/bin/python facts.py
