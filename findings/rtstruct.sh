#!/usr/bin/env bash
# What becomes of masks that rt-utils writes as a DICOM structure set (RTSTRUCT), seen with the versions pinned below by another
# reader. Makes its own files (no patient), needs Python 3.10 to 3.12 and a package index, and fails if a behaviour changes.
#
# 1. rt-utils 1.2.7 reads its own contours back to the voxel: nobody notices what follows.
# 2. Where rows and columns differ in size its contours lie at swapped places: plastimatch finds Dice 0.71 for a ball.
# 3. With square pixels they do not, and Dice is 0.97: its contours run through the centres of the outermost pixels.
# 4. The hole of a ring is filled.
# 5. Structures one voxel thick come back empty.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check \
    rt-utils==1.2.7 plastimatch==1.10.0 pydicom==3.0.2 SimpleITK==2.5.7 opencv-python-headless "numpy>=1.26"
cat > facts.py <<'EOF'
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from rt_utils import RTStructBuilder

failed = []


def fact(text, seen, expected):
    print(f"{text}\n    seen {seen}, expected here {expected}")
    if seen != expected:
        failed.append(text)


def series(folder, shape, spacing):
    """A CT (slices, rows, columns); spacing: mm between rows, and between columns."""
    Path(folder).mkdir()
    for k in range(shape[0]):
        ds = Dataset()
        ds.file_meta = FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = CTImageStorage
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
        ds.Modality, ds.PatientID, ds.PatientName, ds.StudyDate, ds.StudyTime = "CT", "T", "T", "20260101", "100000"
        ds.PatientBirthDate = ds.PatientSex = ds.StudyID = ds.StudyDescription = ds.SeriesDescription = ""
        ds.Manufacturer = ds.InstitutionName = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.PatientPosition, ds.InstanceNumber, ds.SeriesNumber = "HFS", k + 1, 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [0.0, 0.0, 2.5 * k], [1.0, 0, 0, 0, 1.0, 0]
        ds.PixelSpacing, ds.SliceThickness, ds.SliceLocation = list(spacing), 2.5, 2.5 * k
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = *shape[1:], 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = np.zeros(shape[1:], np.int16).tobytes()
        ds.save_as(f"{folder}/{k:02d}.dcm", enforce_file_format=True)


def dice(one, other):
    return round(2 * float((one & other).sum()) / float(one.sum() + other.sum()), 2)


def by_plastimatch(folder, name, shape):
    program = Path(sys.executable).parent / "plastimatch"
    command = [program, "convert", "--input", f"{folder}.dcm", "--referenced-ct", folder, "--output-prefix", f"{folder}-out"]
    subprocess.run([*command, "--prefix-format", "nrrd"], check=True, capture_output=True)
    file = Path(f"{folder}-out/{name}.nrrd")
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file))) > 0 if file.exists() else np.zeros(shape, bool)


for package in ("rt-utils", "plastimatch", "pydicom"):
    print(package, version(package))
shape = (24, 64, 64)
k, j, i = np.indices(shape)
masks = {"ball": np.hypot(np.hypot(j - 36, i - 28), 2.5 * (k - 12)) < 14}
distance = np.hypot(j - 40, i - 26)
masks["ring"] = (distance < 14) & (distance > 6) & (k > 5) & (k < 15)
masks["slab"] = (j == 50) & (i > 4) & (i < 40) & (k > 5) & (k < 15)
masks["voxel"] = (j == 20) & (i == 50) & (k == 10)
for folder, spacing in (("oblong", (0.9, 0.8)), ("square", (0.8, 0.8))):
    series(folder, shape, spacing)
    structures = RTStructBuilder.create_new(dicom_series_path=folder)
    for name, mask in masks.items():
        structures.add_roi(mask=np.moveaxis(mask, 0, 2), name=name)
    structures.save(f"{folder}.dcm")
own = RTStructBuilder.create_from(dicom_series_path="oblong", rt_struct_path="oblong.dcm")
back = {name: dice(np.moveaxis(own.get_roi_mask_by_name(name), 2, 0), mask) for name, mask in masks.items()}
fact("1. rt-utils, its own contours read by itself, Dice (right: 1)", list(back.values()), [1.0, 1.0, 1.0, 1.0])
ball = {folder: dice(by_plastimatch(folder, "ball", shape), masks["ball"]) for folder in ("oblong", "square")}
fact("2. a ball on pixels of 0.9 x 0.8 mm, Dice by plastimatch (right: 1)", ball["oblong"], 0.71)
fact("3. the same on square pixels", ball["square"], 0.97)
ring = by_plastimatch("square", "ring", shape)
fact("4. voxels in the hole of a ring (right: 0)", int((ring & (distance < 4)).sum()), 405)
thin = [int(by_plastimatch("square", name, shape).sum()) for name in ("slab", "voxel")]
fact("5. voxels of a slab and of a single voxel (right: 315, 1)", thin, [0, 0])

sys.exit(f"changed: {failed}" if failed else 0)
EOF
env/bin/python facts.py
