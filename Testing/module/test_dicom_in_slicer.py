"""DICOM files in Slicer's reader and in ProSMA's: the same voxel at the same place, so panel and command agree."""

import numpy as np
import pytest
from dicom_writing import OBLIQUE, SAGITTAL, data_set, enhanced, noise, place, write, write_series

from prosma.image.reading import read_image

EVEN = 2.5 * np.arange(12)
UNSIGNED = noise().astype(np.uint16)


def own_scaling(ds, k):
    ds.RescaleSlope, ds.RescaleIntercept = f"{0.5 + 0.01 * k:.3f}", "-3"


def inverted(folder):
    pixels = noise((9, 11), high=4096).astype(np.uint16)
    facts = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1"}
    return [write(folder / "x.dcm", place(data_set(pixels, **facts), (1, 2, 3)))]


GENERATED = {
    "axial": lambda folder: write_series(folder, noise()),
    "oblique and descending": lambda folder: write_series(folder, noise(), (0.8, 0.9, -2.5), OBLIQUE),
    "sagittal": lambda folder: write_series(folder, noise(), axes=SAGITTAL),
    "slopes": lambda folder: write_series(folder, noise(), edit=own_scaling),
    "one slice": lambda folder: write_series(folder, noise((1, 16, 20)), axes=OBLIQUE),
    "colours": lambda folder: [write(folder / "x.dcm", data_set(noise((9, 11, 3)).astype(np.uint8), "OT"))],
    "a radiograph": lambda folder: [
        write(folder / "x.dcm", data_set(noise((9, 11)), "CR", ImagerPixelSpacing=[0.2, 0.1]))
    ],
    "inverted": inverted,
    "enhanced": lambda folder: [write(folder / "x.dcm", enhanced(UNSIGNED, EVEN, OBLIQUE))],
    "enhanced and descending": lambda folder: [write(folder / "x.dcm", enhanced(UNSIGNED, EVEN[::-1]))],
    "enhanced CT": lambda folder: [write(folder / "x.dcm", enhanced(UNSIGNED, EVEN, modality="CT", storage="2.1"))],
}
REAL = [
    "ct_abdomen_chaos",
    "ct_liver_seg_object",
    "mr_hippocampus_crop",
    "mr_jpeg2000",
    "mr_jpegls",
    "mr_non_isotropic",
]
REAL += ["mr_rgb", "mr_rle", "mr_sagittal_ge", "mr_sagittal_philips"]


def assert_same(files):
    """Every voxel of ProSMA's image lies on one of Slicer's volume and has its value."""
    import slicer
    import vtk

    single = len(files) == 1
    image = read_image(files[0] if single else files[0].parent)
    node = slicer.modules.volumes.logic().AddArchetypeVolume(str(files[0]), "read", 4 if single else 0)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    theirs = slicer.util.arrayFromVTKMatrix(matrix)
    array = slicer.util.arrayFromVolume(node)
    array = (array if array.ndim == 4 else array[..., None]).T
    assert array.shape == image.array.shape
    ijk = np.indices(image.shape).reshape(3, -1)
    ras = image.ijk_to_ras @ np.vstack([ijk, np.ones(ijk.shape[1])])
    index = np.rint(np.linalg.solve(theirs, ras)).astype(int)
    assert np.abs(theirs @ index - ras).max() < 0.01
    assert (index[:3] >= 0).all()
    found = array[:, index[0], index[1], index[2]]
    np.testing.assert_allclose(image.array.reshape(len(image.array), -1), found, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(GENERATED))
def test_generated_files(panel, tmp_path, name):
    assert_same(GENERATED[name](tmp_path / "a"))


@pytest.mark.parametrize("name", REAL)
def test_real_series(panel, shared, name):
    assert_same(sorted((shared / "robust_volumes" / "dicom" / name).iterdir()))
