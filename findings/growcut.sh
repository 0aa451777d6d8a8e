#!/usr/bin/env bash
# How many slices Slicer's "Grow from seeds" (vtkImageGrowCutSegment) needs, seen with the versions pinned below. Makes its
# own images (a bright block in a dark field, one seed in each), needs Linux, a CPython for which slicer-core has a wheel
# (seen with 3.11) and a package index, and fails if a behaviour changes.
#
# 1. With one or two voxels along any axis, as a radiograph, a photograph or a scan of two slices has, there is no result: the
#    output has no voxels and no scalars, Update() tells no error, and only a warning goes to the log.
# 2. The same slice three times over gives the block and its surroundings, to the voxel, in each slice.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
"${PYTHON:-python3}" -m venv env
env/bin/python -m pip install --quiet --disable-pip-version-check slicer-core==5.12.4.0 "numpy>=1.26"
cat > facts.py <<'EOF'
import sys
from importlib.metadata import version

import numpy as np
import vtk
from slicer_core.vtkSlicerSegmentationsModuleLogic import vtkImageGrowCutSegment
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

failed = []
print(", ".join(f"{name} {version(name)}" for name in ("slicer-core", "vtk", "numpy")))


def fact(what, seen, expected):
    print(f"{what}: {seen}")
    if seen != expected:
        print(f"    changed; it was {expected}")
        failed.append(what)


def image_of(array):
    image = vtk.vtkImageData()
    image.SetDimensions(array.shape)
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(order="F"), deep=True))
    return image


def grown(shape):
    """Dimensions of the result, errors that were told, and the voxels of each label."""
    block = tuple(slice(5, 15) if n == 20 else slice(None) for n in shape)
    image, seeds = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    image[block] = 100
    for label, place in ((1, 10), (2, 1)):
        seeds[tuple(place if n == 20 else n // 2 for n in shape)] = label
    growing, errors = vtkImageGrowCutSegment(), []
    growing.AddObserver("ErrorEvent", lambda *_: errors.append(1))
    growing.SetIntensityVolume(image_of(image))
    growing.SetSeedLabelVolume(image_of(seeds))
    growing.Update()
    output = growing.GetOutput()
    scalars = output.GetPointData().GetScalars()
    counts = None if scalars is None else np.bincount(vtk_to_numpy(scalars), minlength=3).tolist()
    return output.GetDimensions(), len(errors), counts


for shape in ((20, 20, 1), (20, 20, 2), (20, 1, 20), (1, 20, 20)):
    fact(f"{shape}", grown(shape), ((0, 0, 0), 0, None))
fact("(20, 20, 3)", grown((20, 20, 3)), ((20, 20, 3), 0, [0, 300, 900]))
sys.exit(f"{len(failed)} changed" if failed else 0)
EOF
env/bin/python facts.py
