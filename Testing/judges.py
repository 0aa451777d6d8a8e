"""Programs that are not ours and read what ProSMA writes: what they see, on the grid of an image."""

from __future__ import annotations

import shutil
import subprocess
import sys
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


def dcmqi_labels(path: Path, folder: Path, image: Image) -> np.ndarray:
    """The segments of a DICOM segmentation by their numbers, as dcmqi's segimage2itkimage sees them, (I, J, K)."""
    import SimpleITK as sitk

    folder.mkdir()
    command = [program("segimage2itkimage"), "--inputDICOM", path, "--outputDirectory", folder, "--outputType", "nrrd"]
    subprocess.run(list(map(str, command)), check=True, timeout=300, capture_output=True)
    labels = np.zeros(image.shape, np.int64)
    files = sorted(folder.glob("*.nrrd"))
    assert files, "dcmqi wrote nothing"
    for file in files:
        picture = sitk.ReadImage(str(file))
        own = on_grid(picture, image)
        labels[own > 0] = own[own > 0]
    return labels


def plastimatch_masks(path: Path, folder: Path, series: Path, image: Image) -> dict[str, np.ndarray]:
    """The structures of a DICOM structure set by their names, as plastimatch fills them, (I, J, K)."""
    import SimpleITK as sitk

    command = [program("plastimatch"), "convert", "--input", path, "--referenced-ct", series, "--output-prefix", folder]
    subprocess.run([*map(str, command), "--prefix-format", "nrrd"], check=True, timeout=300, capture_output=True)
    return {file.stem: on_grid(sitk.ReadImage(str(file)), image) > 0 for file in folder.glob("*.nrrd")}


def on_grid(picture, image: Image) -> np.ndarray:
    """The voxels above 0 of a SimpleITK image at their places on an image's grid; all must lie on its voxels."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(picture).T
    spacing, direction = np.array(picture.GetSpacing()), np.array(picture.GetDirection()).reshape(3, 3)
    index = np.argwhere(array > 0)
    lps = np.array(picture.GetOrigin()) + (index * spacing) @ direction.T
    inverse = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.ijk_to_ras)
    there = lps @ inverse[:3, :3].T + inverse[:3, 3]
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
