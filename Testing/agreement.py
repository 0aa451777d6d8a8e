"""Whether the engine's readers and Slicer's own place the same voxel at the same point of the patient, with the same value.

    python Testing/agreement.py            print the table, write nothing
    python Testing/agreement.py --write    put it into docs/formats.md

The volumes are those of robust_volumes, where they are at hand, and others made here. Slicer's reader is that of slicer-core,
for pictures ITK's.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image

import headless_slicer
from prosma.errors import UserFacingError
from prosma.image.reading import read_image
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "formats.md"
ROBUST = Path(os.environ.get("PROSMA_SHARED_DATA") or ROOT.parent / "shared" / "data") / "robust_volumes"
BEGIN, END = "<!-- agreement: written by Testing/agreement.py -->", "<!-- agreement: end -->"
MOST_MM = 0.01
PICTURES = (".png", ".jpg", ".tif", ".bmp")
IN_TWO_WAYS = "places its voxels in two ways"  # how the panel refuses what Slicer places otherwise than we do
VOXELS = np.random.default_rng(0).integers(0, 200, (12, 10, 8)).astype(np.int16)  # I, J, K
TURNED = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.3, 0.2, 0.1) @ np.diag([-0.9, 1.1, 2.5]), [30, -20, 10])


@dataclass(frozen=True)
class Row:
    """What came of one volume: how far apart (mm) voxels lie, how much values differ at most, who refused."""

    name: str
    mm: float | None = None
    difference: float | None = None
    refused: str = ""

    @property
    def agrees(self) -> bool:
        """Whether both agree, or one refuses."""
        return bool(self.refused) or (self.mm <= MOST_MM and self.difference == 0)


def volumes(folder: Path) -> dict[str, Path]:
    """Names and paths of all volumes; those that are made lie in `folder`."""
    found = {}
    if ROBUST.is_dir():
        for item in json.loads((ROBUST / "manifest.json").read_text()):
            found[item["file"].rstrip("/")] = ROBUST / item["file"]
    return {**found, **nifti_files(folder), **other_files(folder), **pictures(folder)}


def nifti_files(folder: Path) -> dict[str, Path]:
    """NIfTI of many kinds, by nibabel."""
    half_turn, sheared = (
        np.diag([-1.0, -1, 1, 1]) @ TURNED,
        TURNED @ np.array([[1, 0.01, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    )
    forms = {  # sform, code, qform, code
        "sform and qform": (TURNED, 1, TURNED, 1),
        "sform alone": (TURNED, 2, TURNED, 0),
        "qform alone": (TURNED, 0, TURNED, 1),
        "left-handed": (TURNED @ np.diag([-1.0, 1, 1, 1]), 1, TURNED @ np.diag([-1.0, 1, 1, 1]), 1),
        "no orientation": (TURNED, 0, TURNED, 0),
        "two forms, sform code 1": (TURNED, 1, half_turn, 1),
        "two forms, sform code 2": (TURNED, 2, half_turn, 1),
        "sheared sform, good qform": (sheared, 1, TURNED, 1),
        "sheared sform alone": (sheared, 1, TURNED, 0),
    }
    found = {}
    for name, (sform, scode, qform, qcode) in forms.items():
        image = nib.Nifti1Image(VOXELS, TURNED)
        image.set_sform(sform, scode)
        image.set_qform(qform, qcode)
        found[name] = _saved(folder, name, image)
    found["pixdim other than the matrix"] = _edited(
        _saved(folder, "pixdim", nib.Nifti1Image(VOXELS, TURNED)), 80, "(3,)f4", [1, 1, 1]
    )
    microns = nib.Nifti1Image(VOXELS, np.diag([500.0, 500, 500, 1]))
    microns.header.set_xyzt_units("micron")
    found["microns"] = _saved(folder, "microns", microns)
    scaled = nib.Nifti1Image(VOXELS.astype(np.float32) * 0.5 - 3, TURNED)
    scaled.header.set_data_dtype(np.int16)
    scaled.header.set_slope_inter(0.5, -3)
    found["slope and intercept"] = _saved(folder, "scaled", scaled)
    found["big-endian"] = _saved(folder, "big", nib.Nifti1Image(VOXELS, TURNED, nib.Nifti1Header(endianness=">")))
    found["NIfTI-2"] = _saved(folder, "two", nib.Nifti2Image(VOXELS, TURNED))
    nib.MGHImage(VOXELS, TURNED).to_filename(folder / "a.mgz")
    return {**{f"{name} (made)": path for name, path in found.items()}, "FreeSurfer mgz (made)": folder / "a.mgz"}


def _saved(folder: Path, name: str, image) -> Path:
    path = folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.nii.gz"
    path.write_bytes(gzip.compress(image.to_bytes()))
    return path


def _edited(path: Path, place: int, kind: str, values) -> Path:
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[place : place + np.dtype(kind).itemsize] = np.array(values, "f4").tobytes()
    path.write_bytes(gzip.compress(bytes(content)))
    return path


def other_files(folder: Path) -> dict[str, Path]:
    """MetaImage and NRRD by ITK, turned and plain."""
    import SimpleITK as sitk

    found = {}
    for suffix, turned in itertools.product((".mha", ".nrrd", ".nhdr", ".mhd", ".gipl"), (False, True)):
        if suffix == ".gipl" and turned:
            continue
        picture = sitk.GetImageFromArray(np.ascontiguousarray(VOXELS.T))
        picture.SetSpacing((0.9, 1.1, 2.5))
        if turned:
            picture.SetOrigin((3, -4, 5))
            picture.SetDirection(nib.eulerangles.euler2mat(0.3, 0.2, 0.1).ravel().tolist())
        path = folder / f"{'turned' if turned else 'plain'}{suffix}"
        sitk.WriteImage(picture, str(path))
        found[f"{'turned' if turned else 'plain'} {suffix} (made)"] = path
    return found


def pictures(folder: Path) -> dict[str, Path]:
    """Pictures by Pillow."""
    shades = np.random.default_rng(1).integers(0, 255, (9, 14, 3)).astype(np.uint8)
    colour, grey = PIL.Image.fromarray(shades), PIL.Image.fromarray(shades[..., 0])
    made = {
        "colour.png": (colour, {}),
        "grey.png": (grey, {}),
        "16 bits.png": (PIL.Image.fromarray(shades[..., 0].astype(np.uint16) * 257), {}),
        "palette.png": (colour.quantize(32), {}),
        "colour.jpg": (colour, {"quality": 90}),
        "300 dpi.tif": (colour, {"dpi": (300, 300)}),
        "colour.bmp": (colour, {}),
    }
    for name, (picture, options) in made.items():
        picture.save(folder / name, **options)
    return {f"{name} (made)": folder / name for name in made}


def compare(name: str, path: Path) -> Row:
    """One volume by both readers."""
    try:
        image = read_image(path)
    except UserFacingError:
        image = None
    node = slicer_volume(path)
    if image is None or node is None:
        who = "both" if image is None and node is None else "ProSMA" if image is None else "Slicer"
        return Row(name, refused=who)
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    theirs = slicer.util.arrayFromVTKMatrix(matrix)
    array = slicer.util.arrayFromVolume(node)
    array = array[..., None] if array.ndim == 3 else array
    mm, difference = apart(image, array[..., : len(image.array)], theirs)
    refused = "the panel" if panel_refuses(node) else ""
    slicer.mrmlScene.RemoveNode(node)
    return Row(name, mm, difference, refused)


def panel_refuses(node) -> bool:
    """Whether the panel segments this volume with no model, because its file lies elsewhere for other programs."""
    from ProSMASegmentationLib.Models.ModelFit import ModelFit
    from ProSMASegmentationLib.Volumes.VolumeReader import VolumeReader

    reader = VolumeReader(node)
    with tempfile.TemporaryDirectory() as folder:
        package = make_tiny_package(Path(folder) / "model", channels=reader.components)
        return any(IN_TWO_WAYS in error.message for error in ModelFit(package, [reader]).errors)


def slicer_volume(path: Path):
    """The volume node that Slicer makes of a file, or of a folder's first file and its series; None where it makes none."""
    import slicer

    file = path if path.is_file() else sorted(each for each in path.iterdir() if each.is_file())[0]
    if file.suffix in PICTURES:
        return picture_volume(file)
    try:
        return slicer.util.loadVolume(str(file), {"show": False})
    except RuntimeError:
        return None


def picture_volume(path: Path):
    """The volume node of a picture, by ITK's readers of pictures: the application has them, slicer-core has not."""
    import SimpleITK as sitk
    import slicer

    try:
        picture = sitk.ReadImage(str(path))
    except RuntimeError:
        return None
    array = sitk.GetArrayFromImage(picture)
    array = array[None] if picture.GetDimension() == 2 else array
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0])  # from ITK's axes to Slicer's
    matrix[:2, :2] *= picture.GetSpacing()[:2]
    matrix[:2, 3] = np.negative(picture.GetOrigin()[:2])
    kind = "vtkMRMLScalarVolumeNode" if array.ndim == 3 else "vtkMRMLVectorVolumeNode"
    return slicer.util.addVolumeFromArray(array, ijkToRAS=slicer.util.vtkMatrixFromArray(matrix), nodeClassName=kind)


def apart(image, array: np.ndarray, matrix: np.ndarray) -> tuple[float, float]:
    """The greatest distance (mm) of our voxels from theirs (K, J, I, C), and the greatest difference of values there."""
    shape = np.array(image.shape)
    if sorted(shape) != sorted(array.shape[2::-1]) or len(image.array) != array.shape[3]:
        return float("inf"), float("inf")
    random = np.random.default_rng(0)
    corners = np.array(list(itertools.product(*((0, n - 1) for n in shape))))
    ours = np.vstack([corners, random.integers(0, shape, (2000, 3))])
    places = (image.ijk_to_ras @ np.c_[ours, np.ones(len(ours))].T)[:3]
    index = np.rint((np.linalg.inv(matrix) @ np.vstack([places, np.ones(len(ours))]))[:3]).astype(int)
    index = np.clip(index, 0, np.array(array.shape[2::-1])[:, None] - 1)
    distance = np.linalg.norm((matrix @ np.vstack([index, np.ones(len(ours))]))[:3] - places, axis=0).max()
    here = image.array[:, ours[:, 0], ours[:, 1], ours[:, 2]].T.astype(np.float64)
    there = array[index[2], index[1], index[0]].astype(np.float64)
    # Slicer computes scaled values in 32 bits, as we do, but not always in the same order.
    differs = ~np.isclose(here, there, rtol=1e-6, atol=1e-4, equal_nan=True)
    return float(distance), float(np.abs(here - there)[differs].max(initial=0))


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = ["| volume | apart (mm) | values differ by | |", "|---|---|---|---|"]
    for row in rows:
        word = f"refused by {row.refused}" if row.refused else ""
        if row.mm is None:
            lines.append(f"| {row.name} | | | {word} |")
        else:
            mm = "0" if row.mm < 1e-3 else f"{row.mm:.3g}"
            lines.append(f"| {row.name} | {mm} | {row.difference:.3g} | {word} |")
    return "\n".join(lines)


def rows() -> list[Row]:
    """All volumes, compared. Slicer must have been started."""
    with tempfile.TemporaryDirectory() as folder:
        return [compare(name, path) for name, path in volumes(Path(folder)).items()]


def main() -> None:
    headless_slicer.loadModule(str(ROOT / "ProSMASegmentation" / "ProSMASegmentation.py"), enter=False)
    found = rows()
    headless_slicer.close()
    text = table(found)
    print(text)
    compared = sum(not row.refused for row in found)
    print(f"{len(found)} volumes, {compared} compared, {sum(not row.agrees for row in found)} do not agree")
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
