"""Programs that are not ours and read what ProSMA writes: what they see, on the grid of an image."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from prosma.image.geometry import Image


def program(name: str) -> str:
    """The path of a program that pip installed beside this Python, or that the system has; the test is skipped without."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if not found:
        pytest.skip(f"{name} is not installed (pip install -r Testing/requirements.txt)")
    return found


def dcmqi_files(path: Path, folder: Path) -> list[Path]:
    """The NRRD files, of label maps, that dcmqi's segimage2itkimage makes of a DICOM segmentation."""
    folder.mkdir()
    command = [program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(list(map(str, command)), check=True, timeout=300, capture_output=True)
    files = sorted(folder.glob("*.nrrd"))
    assert files, "dcmqi wrote nothing"
    return files


def dcmqi_labels(path: Path, folder: Path, image: Image) -> np.ndarray:
    """The segments of a DICOM segmentation by their numbers, as dcmqi sees them, (I, J, K)."""
    import SimpleITK as sitk

    return together(on_grid(sitk.ReadImage(str(file)), image) for file in dcmqi_files(path, folder))


def slicer_labels(files: list[Path], image: Image) -> np.ndarray:
    """Label maps in files as Slicer's own reader sees them (slicer-core), (I, J, K): how dcmqi's answer gets into Slicer."""
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed")
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    found = []
    for file in files:
        storage, node, matrix = (
            slicer.vtkMRMLVolumeArchetypeStorageNode(),
            slicer.vtkMRMLScalarVolumeNode(),
            vtk.vtkMatrix4x4(),
        )
        storage.SetFileName(str(file))
        storage.SetSingleFile(True)  # or 1.nrrd and 2.nrrd of one slice each become one volume
        assert storage.ReadData(node) == 1
        node.GetIJKToRASMatrix(matrix)
        to_ras = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        data = node.GetImageData()
        array = vtk_to_numpy(data.GetPointData().GetScalars()).reshape(data.GetDimensions()[::-1]).T
        found.append(on_voxels(array, to_ras, image))
    return together(found)


def together(maps: Iterable[np.ndarray]) -> np.ndarray:
    """One label map of several."""
    return functools.reduce(lambda one, other: np.where(other > 0, other, one), maps)


def plastimatch_masks(path: Path, folder: Path, series: Path, image: Image) -> dict[str, np.ndarray]:
    """The structures of a DICOM structure set by their names, as plastimatch fills them, (I, J, K)."""
    import SimpleITK as sitk

    command = [program("plastimatch"), "convert", "--input", path, "--referenced-ct", series, "--output-prefix", folder]
    subprocess.run([*map(str, command), "--prefix-format", "nrrd"], check=True, timeout=300, capture_output=True)
    return {file.stem: on_grid(sitk.ReadImage(str(file)), image) > 0 for file in folder.glob("*.nrrd")}


def on_grid(picture, image: Image) -> np.ndarray:
    """The voxels above 0 of a SimpleITK image at their places on an image's grid; all must lie on its voxels."""
    import SimpleITK as sitk

    spacing, direction = np.array(picture.GetSpacing()), np.array(picture.GetDirection()).reshape(3, 3)
    to_ras = np.eye(4)
    to_ras[:3] = np.diag([-1.0, -1, 1]) @ np.c_[direction * spacing, picture.GetOrigin()]
    return on_voxels(sitk.GetArrayFromImage(picture).T, to_ras, image)


def on_voxels(array: np.ndarray, to_ras: np.ndarray, image: Image) -> np.ndarray:
    """The voxels above 0 of an array (I, J, K) with its matrix, at their places on an image's grid (see `on_grid`)."""
    index = np.argwhere(array > 0)
    there = (np.linalg.inv(image.ijk_to_ras) @ to_ras @ np.c_[index, np.ones(len(index))].T)[:3].T
    whole = np.rint(there).astype(int)
    assert np.abs(there - whole).max(initial=0) < 0.02, "voxels lie between those of the image"
    assert (whole >= 0).all(), "voxels lie outside of the image"
    labels = np.zeros(image.shape, np.int64)
    labels[tuple(whole.T)] = array[tuple(index.T)]
    return labels


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Of two masks; 1 where both are empty."""
    total = int(one.sum()) + int(other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0
