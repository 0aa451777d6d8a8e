"""Volumes that are refused, and what the refusals say is to be done (training/prosma/image)."""

import gzip
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from prosma.image.geometry import Image, checked_image
from prosma.image.reading import read_image, read_labels
from prosma.image.writing import write_labels
from remedies import refused
from small_volumes import write_meta_image

VOXELS = np.random.default_rng(0).integers(0, 500, (6, 5, 4)).astype(np.int16)  # I, J, K
BYTES = VOXELS.tobytes(order="F")
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nencoding: raw\nspace: left-posterior-superior\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
)
AGAIN = "Copy, download or export it again"
REPAIR = "Export it again, or correct its header, which is text"
FORMATS = "image/formats/"


def is_right(path, voxels=VOXELS):
    np.testing.assert_array_equal(read_image(path).array[0], voxels)


def meta(path, data=BYTES, file="LOCAL", **entries):
    return write_meta_image(path, data, file, **entries)


def nrrd(path, old="", new="", data=BYTES):
    assert old in NRRD
    path.write_bytes(NRRD.replace(old, new).encode() + b"\n" + data if old else f"{NRRD}\n".encode() + data)
    return path


def nifti(path, voxels=VOXELS, **fields):
    """A file whose header is changed past nibabel's checks."""
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)
    packed = path.name.endswith(".gz")
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def mgh(path, **fields):
    nib.MGHImage(VOXELS, np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    for place, value in fields.items():
        struct.pack_into(">i", content, int(place[1:]), value)
    path.write_bytes(content)
    return path


# --- volumes that are damaged: a whole copy is read

CUT = BYTES[:100]
PACKED = gzip.compress(BYTES)
WRONG = {
    "image/formats/unpacking.py: is cut off: a part of its voxels is missing": (
        lambda f: nifti(f / "a.nii").write_bytes((f / "a.nii").read_bytes()[:400]),
        "a.nii",
        AGAIN,
    ),
    "image/formats/unpacking.py: its packed voxels cannot be unpacked": (
        lambda f: damage(nifti(f / "a.nii.gz")),
        "a.nii.gz",
        AGAIN,
    ),
    "image/formats/metaimage.py: is damaged, cut off or no MetaImage": (
        lambda f: (f / "a.mha").write_bytes(b"no header"),
        "a.mha",
        AGAIN,
    ),
    "image/formats/metaimage.py: twice, and differently": (
        lambda f: meta(f / "a.mha", **{"DimSize ": "6 5 3"}),
        "a.mha",
        REPAIR,
    ),
    "image/formats/metaimage.py: is damaged: its ... is": (
        lambda f: meta(f / "a.mha", ElementSpacing="1 nan 1"),
        "a.mha",
        REPAIR,
    ),
    "image/formats/metaimage.py: it names ... dimensions": (lambda f: meta(f / "a.mha", NDims="0"), "a.mha", REPAIR),
    "image/formats/metaimage.py: voxels along an axis": (
        lambda f: meta(f / "a.mha", DimSize="6 -5 4"),
        "a.mha",
        REPAIR,
    ),
    "image/formats/metaimage.py: is empty: it has no voxels": (
        lambda f: meta(f / "a.mha", DimSize="6 0 4"),
        "a.mha",
        "Choose another volume",
    ),
    "image/formats/metaimage.py: has voxels of a type that is not known": (
        lambda f: meta(f / "a.mha", ElementType="MET_HALF"),
        "a.mha",
        "Save it with voxels of 8, 16 or 32 bits",
    ),
    "image/formats/metaimage.py: its TransformMatrix is no rotation": (
        lambda f: meta(f / "a.mha", TransformMatrix="2 0 0 0 1 0 0 0 1"),
        "a.mha",
        REPAIR,
    ),
    "image/formats/mgh.py: is damaged, cut off or no FreeSurfer volume": (
        lambda f: (f / "a.mgh").write_bytes(b"no"),
        "a.mgh",
        AGAIN,
    ),
    "image/formats/mgh.py: is damaged: it names": (lambda f: mgh(f / "a.mgh", b20=99), "a.mgh", AGAIN),
    "image/formats/nifti.py: is damaged, cut off or no NIfTI file": (
        lambda f: (f / "a.nii").write_bytes(b"no header" * 99),
        "a.nii",
        AGAIN,
    ),
    "image/formats/nifti.py: is empty: it has no voxels": (
        lambda f: nifti(f / "a.nii", dim=[3, 6, 0, 4, 1, 1, 1, 1]),
        "a.nii",
        "Choose another volume",
    ),
    "image/formats/nifti.py: it says that voxels begin at byte": (
        lambda f: nifti(f / "a.nii", vox_offset=100),
        "a.nii",
        AGAIN,
    ),
    "image/formats/nifti_header.py: is damaged: ...": (
        lambda f: nifti(f / "a.nii", dim=[9, 6, 5, 4, 1, 1, 1, 1]),
        "a.nii",
        AGAIN,
    ),
    "image/formats/nrrd.py: is damaged, cut off or no NRRD": (
        lambda f: (f / "a.nrrd").write_bytes(b"NRRD0004"),
        "a.nrrd",
        AGAIN,
    ),
    "image/formats/nrrd.py: is damaged: its ... is": (
        lambda f: nrrd(f / "a.nrrd", "origin: (0,0,0)", "origin: (0,inf,0)"),
        "a.nrrd",
        REPAIR,
    ),
    "image/formats/nrrd.py: gives a unit of its own to each axis": (
        lambda f: nrrd(f / "a.nrrd", "space origin", 'space units: "mm" "um" "mm"\nspace origin'),
        "a.nrrd",
        REPAIR,
    ),
    "image/reading.py: is empty: it has no bytes": (
        lambda f: (f / "a.nii").write_bytes(b""),
        "a.nii",
        "Copy or export it again",
    ),
    "image/reading.py: it is damaged, incomplete or of an unknown format": (
        lambda f: nrrd(f / "a.nrrd", data=CUT),
        "a.nrrd",
        "Copy or export it again",
    ),
}
RIGHT = {"a.nii": nifti, "a.nii.gz": nifti, "a.mha": meta, "a.mgh": mgh, "a.nrrd": nrrd}


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 30] = bytes(30)
    path.write_bytes(content)


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_volume_is_copied_exported_or_corrected(tmp_path, name):
    make, file, remedy = WRONG[name]
    make(tmp_path)
    refused(name, remedy, read_image, tmp_path / file)
    RIGHT[file](tmp_path / file)
    is_right(tmp_path / file)


def test_packed_metaimages_and_gipl(tmp_path):
    packed = zlib.compress(BYTES)
    meta(tmp_path / "a.mha", packed[:-20], CompressedData="True")
    refused("image/formats/metaimage.py: is cut off", AGAIN, read_image, tmp_path / "a.mha")
    meta(tmp_path / "a.mha", b"\0" + packed, CompressedData="True")
    refused(
        "image/formats/metaimage.py: is damaged: its packed voxels cannot be unpacked",
        AGAIN,
        read_image,
        tmp_path / "a.mha",
    )
    is_right(meta(tmp_path / "a.mha", packed, CompressedData="True"))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(tmp_path / "a.gipl"))
    content = (tmp_path / "a.gipl").read_bytes()
    (tmp_path / "a.gipl").write_bytes(content[:-10])
    refused("image/formats/gipl.py: is cut off", AGAIN, read_image, tmp_path / "a.gipl")
    (tmp_path / "a.gipl").write_bytes(content)
    is_right(tmp_path / "a.gipl")


def test_the_other_file_of_a_pair_is_put_beside_it(tmp_path):
    nib.Nifti1Pair(VOXELS, np.eye(4)).to_filename(tmp_path / "a.hdr")
    (tmp_path / "away").mkdir()
    (tmp_path / "a.img").rename(tmp_path / "away/a.img")
    refused(
        "image/formats/nifti.py: is one of a pair of files",
        "Put a.img into the same folder",
        read_image,
        tmp_path / "a.hdr",
    )
    (tmp_path / "away/a.img").rename(tmp_path / "a.img")
    is_right(tmp_path / "a.hdr")
    meta(tmp_path / "a.mhd", b"", "b.raw")
    refused(
        "image/formats/unpacking.py: are in another file",
        "Put b.raw into the same folder",
        read_image,
        tmp_path / "a.mhd",
    )
    (tmp_path / "b.raw").write_bytes(BYTES)
    is_right(tmp_path / "a.mhd")


def test_analyze_is_saved_as_nrrd(tmp_path):
    nib.AnalyzeImage(VOXELS, np.eye(4)).to_filename(tmp_path / "a.hdr")
    refused(
        "image/formats/nifti.py: is an Analyze 7.5 file",
        "check its sides and save it as .nrrd",
        read_image,
        tmp_path / "a.hdr",
    )
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(tmp_path / "a.nrrd"))
    is_right(tmp_path / "a.nrrd")


SERIES = {
    ".nii": "image/formats/nifti.py: such as a time series",
    ".mha": "image/formats/metaimage.py: such as a time series",
    ".mgh": "image/formats/mgh.py: such as a time series",
    ".nrrd": "image/reading.py: such as a time series",
}


@pytest.mark.parametrize("ending", SERIES)
def test_of_a_time_series_one_time_point_is_saved(tmp_path, ending):
    times, path = np.stack([VOXELS, VOXELS + 1], -1), tmp_path / f"a{ending}"
    if ending == ".mha":
        meta(
            path,
            times.tobytes(order="F"),
            NDims="4",
            DimSize="6 5 4 2",
            ElementSpacing="1 1 1 1",
            Offset="0 0 0 0",
            TransformMatrix=" ".join(map(str, np.eye(4).ravel())),
        )
    elif ending == ".nrrd":
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(times.T, isVector=False), str(path))
    else:
        (nib.Nifti1Image if ending == ".nii" else nib.MGHImage)(times, np.eye(4)).to_filename(path)
    refused(SERIES[ending], "Choose one time point or one volume of it and save that", read_image, path)
    one = SimpleITK.GetImageFromArray(times[..., 1].T)
    if ending == ".mgh":
        nib.MGHImage(times[..., 1], np.eye(4)).to_filename(path)
    else:
        SimpleITK.WriteImage(one, str(path))
    is_right(path, VOXELS + 1)


def test_complex_voxels_are_saved_as_their_magnitude(tmp_path):
    waves = (VOXELS * np.exp(0.5j)).astype(np.complex64)
    nifti(tmp_path / "a.nii", waves)
    refused(
        "image/formats/nifti.py: has complex numbers as voxels",
        "Save its magnitude as a volume",
        read_image,
        tmp_path / "a.nii",
    )
    nifti(tmp_path / "a.nii", np.abs(waves).astype(np.float32))
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").array[0], VOXELS, rtol=1e-5)
    picture = SimpleITK.Cast(SimpleITK.GetImageFromArray(waves.T), SimpleITK.sitkComplexFloat32)
    SimpleITK.WriteImage(picture, str(tmp_path / "a.nrrd"))
    name = "image/reading.py: has complex numbers as voxels"
    refused(name, "Save its magnitude as a volume", read_image, tmp_path / "a.nrrd")
    SimpleITK.WriteImage(SimpleITK.ComplexToModulus(picture), str(tmp_path / "a.nrrd"))
    np.testing.assert_allclose(read_image(tmp_path / "a.nrrd").array[0], VOXELS, rtol=1e-5)


def test_voxels_of_several_colours_are_saved_one_by_one(tmp_path):
    kind = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours = np.zeros((6, 5, 4, 1, 2), kind)
    colours["G"] = np.stack([VOXELS % 200, VOXELS % 100], -1)[:, :, :, None]
    nib.Nifti1Image(colours, np.eye(4)).to_filename(tmp_path / "a.nii")
    refused(
        "image/formats/nifti.py: has several colours in each voxel",
        "Save one of them as a volume",
        read_image,
        tmp_path / "a.nii",
    )
    nib.Nifti1Image(colours[..., 0, 0], np.eye(4)).to_filename(tmp_path / "a.nii")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii").array[1], VOXELS % 200)


def test_files_of_other_formats_are_saved_or_named_otherwise(tmp_path):
    for name in ("a.mnc", "a.xyz"):
        (tmp_path / name).write_bytes(b"anything")
    refused(
        "image/formats/others.py: is a MINC file",
        "Save it as NIfTI, for instance with nibabel",
        read_image,
        tmp_path / "a.mnc",
    )
    is_right(nifti(tmp_path / "a.nii"))
    (tmp_path / "a.nii").rename(tmp_path / "scan")
    error = refused(
        "image/formats/others.py: has no ending of a format",
        "give it the ending of its format",
        read_image,
        tmp_path / "scan",
    )
    assert ".nii," in error.remedy
    (tmp_path / "scan").rename(tmp_path / "scan.nii")
    is_right(tmp_path / "scan.nii")
    refused("image/reading.py: does not exist", "Check its name", read_image, tmp_path / "scan.ni")


# --- arrays, as Python and Slicer give them


TIMES = np.stack([VOXELS, VOXELS], -1)
ARRAYS = {
    "image/geometry.py: dimensions; only 2D and 3D volumes": (TIMES, np.eye(4), "Choose one time point or one volume"),
    "image/geometry.py: is not a finite 4 x 4 matrix": (VOXELS, np.full((4, 4), np.nan), "Repair its header"),
    "image/geometry.py: is singular": (VOXELS, np.diag([1, 0, 1, 1.0]), "Repair its spacing and directions"),
    "image/geometry.py: are not at right angles": (
        VOXELS,
        np.eye(4) + np.diag([0.3, 0, 0], 1),
        "Resample it to a regular",
    ),
    "image/geometry.py: The volume is empty": (VOXELS[..., :0], np.eye(4), "Load or choose another volume"),
    "image/geometry.py: The volume has complex numbers": (VOXELS * 1j, np.eye(4), "Save its magnitude"),
    "image/geometry.py: voxels are of the type": (VOXELS.astype("U3"), np.eye(4), "Save it with numbers as voxels"),
    "image/geometry.py: holds no finite number": (VOXELS * np.nan, np.eye(4), "Choose another volume"),
    "image/geometry.py: are infinite or beyond 10^38": (
        np.where(VOXELS > 99, VOXELS, np.inf),
        np.eye(4),
        "Check the scaling",
    ),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_mended_as_it_is_said(name):
    array, matrix, remedy = ARRAYS[name]
    refused(name, remedy, checked_image, Image(np.asarray(array)[None], matrix))
    assert checked_image(Image(VOXELS[None], np.eye(4))).checked


# --- what is asked for


def test_images_and_series_are_named_as_it_is_said(tmp_path):
    path = nifti(tmp_path / "a.nii")
    refused("image/reading.py: No image was given", "Give at least one file", read_image, [])
    refused(
        "image/reading.py: series were chosen for",
        "Choose one for all, or one for each",
        read_image,
        [path, path],
        ["1", "2", "3"],
    )
    refused(
        "image/reading.py: but none of the images is DICOM", "Leave out the choice of a series", read_image, path, "1"
    )
    assert read_image([path, path]).array.shape[0] == 2


def test_label_maps_hold_whole_numbers_and_are_written_with_a_known_ending(tmp_path):
    nifti(tmp_path / "a.nii", (VOXELS / 3).astype(np.float32))
    refused("image/reading.py: a label map holds whole numbers", "Choose another file", read_labels, tmp_path / "a.nii")
    gaps = np.where(VOXELS > 250, 1, np.nan).astype(np.float32)
    nifti(tmp_path / "a.nii", gaps)
    refused(
        "image/reading.py: nobody can tell which label", "Save it with 0 where nothing", read_labels, tmp_path / "a.nii"
    )
    nifti(tmp_path / "a.nii", np.nan_to_num(gaps))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.nii").array[0] == 1, VOXELS > 250)
    image = read_labels(nifti(tmp_path / "b.nii"))
    labels = (VOXELS > 250).astype(np.uint8)
    described = [{"value": 1, "name": "one", "color": [1, 2, 3]}]
    error = refused(
        "image/writing.py: does not end like a label map",
        "Choose one of",
        write_labels,
        tmp_path / "b.txt",
        labels,
        image,
        described,
    )
    for ending in error.remedy.removeprefix("Choose one of ").rstrip(".").split(", "):
        write_labels(tmp_path / f"c{ending}", labels, image, described)
        np.testing.assert_array_equal(read_labels(tmp_path / f"c{ending}").array[0] != 0, labels)
