#!/usr/bin/env bash
# How Slicer's reader of volumes joins files by their names, seen with the versions pinned below. Makes its own files (one
# value in all voxels), needs Linux, a CPython for which slicer-core has a wheel (seen with 3.11) and a package index, and
# fails if a behaviour changes.
#
# 1. Files of one slice whose names differ in a number become one volume when one of them is read: also NRRD, NIfTI and
#    MetaImage, which hold an image with its place, and also where the number stands in the middle of the name.
# 2. The distance of their slices is that of the files' origins, whatever lies between (here two images 40 mm apart
#    sideways and 7 mm upwards: 40.6 mm); where the origins are one, it is 1 mm. The files say 2.5 mm.
# 3. With SetSingleFile, and where the names differ in letters or the files have several slices, each is read alone.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check slicer-core==5.12.4.0 SimpleITK==2.5.7 "numpy>=1.26"
cat > facts.py <<'EOF'
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import slicer
from vtk.util.numpy_support import vtk_to_numpy

failed = []
print(", ".join(f"{name} {version(name)}" for name in ("slicer-core", "SimpleITK", "numpy")))


def fact(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        print(f"    changed; it was {expected}")
        failed.append(what)


def written(folder, names, slices=1, second_at=(0, 0, 0)):
    """Files with the values 1, 2, ...; the first lies at the origin. The path of the first."""
    Path(folder).mkdir()
    for value, name in enumerate(names, start=1):
        image = sitk.GetImageFromArray(np.full((slices, 4, 5), value, np.int16))
        image.SetSpacing((1, 1, 2.5))
        image.SetOrigin(second_at if value > 1 else (0, 0, 0))
        sitk.WriteImage(image, f"{folder}/{name}")
    return Path(folder, names[0]).resolve()


def read(path, single=False):
    """Distance of the slices, and the value of each."""
    storage, node = slicer.vtkMRMLVolumeArchetypeStorageNode(), slicer.vtkMRMLScalarVolumeNode()
    storage.SetFileName(str(path))
    storage.SetSingleFile(single)
    assert storage.ReadData(node) == 1
    data = node.GetImageData()
    slices = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1])
    return round(node.GetSpacing()[2], 1), [int(value) for value in slices[:, 0, 0]]


for kind in ("nrrd", "nii.gz", "mha"):
    path = written(f"two {kind}", [f"1.{kind}", f"2.{kind}"])
    fact(f"1. 1.{kind} beside 2.{kind}", read(path), (1.0, [1, 2]))
    fact(f"3. the same as a single file ({kind})", read(path, single=True), (2.5, [1]))
    path = written(f"masks {kind}", [f"case1_seg.{kind}", f"case2_seg.{kind}"], second_at=(40, 0, 7))
    fact(f"2. case1_seg.{kind} beside case2_seg.{kind}, 40 mm to the side", read(path), (40.6, [1, 2]))
    path = written(f"letters {kind}", [f"a.{kind}", f"b.{kind}"])
    fact(f"3. a.{kind} beside b.{kind}", read(path), (2.5, [1]))
    path = written(f"thick {kind}", [f"1.{kind}", f"2.{kind}"], slices=3)
    fact(f"3. 1.{kind} beside 2.{kind}, of three slices", read(path), (2.5, [1, 1, 1]))

sys.exit(f"changed: {', '.join(failed)}" if failed else 0)
EOF
env/bin/python facts.py
