"""MetaImage, NRRD, GIPL, FreeSurfer's and other volume files: written by hand, so that every value is known."""

import gzip
import zlib

import nibabel as nib
import numpy as np
import pytest

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image
from small_volumes import smooth_volume, write_meta_image

VOXELS = np.random.default_rng(0).integers(0, 500, (6, 5, 4)).astype(np.int16)  # I, J, K
IN_FILE = np.asfortranarray(VOXELS).tobytes(order="F")
LPS = np.array([[2, 0, 0, 10], [0, 1.5, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1.0]])
RAS = np.diag([-1.0, -1, 1, 1]) @ LPS


def refused(path) -> ImageError:
    with pytest.raises(ImageError) as refusal:
        read_image(path)
    assert refusal.value.remedy and path.name in str(refusal.value)
    return refusal.value


def is_right(path, matrix=RAS, notices=()) -> None:
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], VOXELS)
    np.testing.assert_allclose(image.ijk_to_ras, matrix, atol=1e-12)
    assert len(image.notices) == len(notices)
    for notice, words in zip(image.notices, notices, strict=True):
        assert words in notice and path.name in notice


# --- MetaImage ------------------------------------------------------------------------------------------------------


def meta(path, data=IN_FILE, file="LOCAL", **entries):
    return write_meta_image(path, data, file, **entries)


PACKED = zlib.compress(IN_FILE)
IS_PACKED = {"CompressedData": "True", "CompressedDataSize": str(len(PACKED))}


@pytest.mark.parametrize(
    ("entries", "data", "matrix", "notices"),
    [
        ({}, IN_FILE, RAS, []),
        ({"BinaryDataByteOrderMSB": "True"}, VOXELS.astype(">i2").tobytes(order="F"), RAS, []),
        (IS_PACKED, PACKED, RAS, []),
        ({"CompressedData": "True"}, PACKED, RAS, []),
        ({"TransformMatrix": None}, IN_FILE, RAS, ["does not say how the image is oriented"]),
        ({"ElementSpacing": None, "ElementSize": "2 1.5 3"}, IN_FILE, RAS, []),
        ({"ElementSize": "9 9 9"}, IN_FILE, RAS, []),
        ({"ElementSpacing": None}, IN_FILE, RAS @ np.diag([1 / 2, 1 / 1.5, 1 / 3, 1]), ["1 mm was assumed"]),
        ({"DistanceUnits": "um"}, IN_FILE, np.diag([1e-3, 1e-3, 1e-3, 1]) @ RAS, ["lengths in um"]),
        ({"DistanceUnits": "cm"}, IN_FILE, np.diag([10, 10, 10, 1]) @ RAS, ["lengths in cm"]),
        ({"DistanceUnits": "furlong"}, IN_FILE, RAS, ["'furlong', which is not known"]),
        ({"DistanceUnits": "mm"}, IN_FILE, RAS, []),
        ({"ElementSpacing": "-2 1.5 3"}, IN_FILE, RAS @ np.diag([-1, 1, 1, 1]), []),
        ({"TransformMatrix": "0 1 0 -1 0 0 0 0 1"}, IN_FILE, None, []),
        ({"ElementToIntensityFunctionSlope": "2"}, IN_FILE, RAS, ["as they are stored"]),
        ({"Comment": "any text = with signs"}, IN_FILE, RAS, []),
    ],
)
def test_metaimages(tmp_path, entries, data, matrix, notices):
    if matrix is None:  # the axes of the file run to the back and to the right
        matrix = np.diag([-1.0, -1, 1, 1]) @ [[0, -1.5, 0, 10], [2, 0, 0, 20], [0, 0, 3, 30], [0, 0, 0, 1]]
    is_right(meta(tmp_path / "a.mha", data, **entries), matrix, notices)


@pytest.mark.parametrize("skip", ["0", "12", "-1"])
def test_metaimages_with_their_voxels_in_another_file(tmp_path, skip):
    path = meta(tmp_path / "a.mhd", b"", "b.raw", HeaderSize=skip)
    error = refused(path)
    assert "Put b.raw into the same folder" in error.remedy
    (tmp_path / "b.raw").write_bytes((b"x" * 12 if skip != "0" else b"") + IN_FILE)
    is_right(path)
    (tmp_path / "b.zraw").write_bytes(PACKED)
    is_right(meta(tmp_path / "a.mhd", b"", "b.zraw", **IS_PACKED))


def test_metaimages_of_several_files_or_as_text_are_read_as_well(tmp_path):
    for k in range(4):
        (tmp_path / f"s{k}.raw").write_bytes(VOXELS[..., k].tobytes(order="F"))
    is_right(meta(tmp_path / "a.mhd", b"".join(b"s%d.raw\n" % k for k in range(4)), "LIST"))
    is_right(meta(tmp_path / "a.mhd", b"", "s%d.raw 0 3 1"))
    text = " ".join(str(value) for value in VOXELS.ravel(order="F")).encode() + b"\n"
    is_right(meta(tmp_path / "a.mha", text, BinaryData="False"))


@pytest.mark.parametrize("file", ["%s 0 3 1", "s%d%n.raw 0 3 1", "%", "s%5000000d.raw 0 3 1", "s%d%d.raw 0 3 1"])
def test_names_that_are_no_pattern_never_come_to_itk_which_would_print_by_them(tmp_path, file):
    with pytest.raises(ImageError, match="no such header"):
        read_image(meta(tmp_path / "a.mhd", b"", file))


@pytest.mark.parametrize(("key", "value"), [("DistanceUnits", "um"), ("DimSize", "2 3 4"), ("ElementSpacing", "9 9 9")])
def test_two_entries_of_one_name_that_differ_are_refused_until_the_header_is_corrected(tmp_path, key, value):
    path = meta(tmp_path / "a.mha", DistanceUnits="mm")
    right = path.read_bytes()
    path.write_bytes(right.replace(b"ElementDataFile", f"{key} = {value}\nElementDataFile".encode()))
    with pytest.raises(ImageError, match=f"gives {key} twice.*correct its header"):
        read_image(path)
    path.write_bytes(right)  # as the remedy says
    is_right(path)


@pytest.mark.parametrize("channels", ["inf", "nan", "-3", "x"])
def test_numbers_of_channels_that_are_none_mean_one(tmp_path, channels):
    is_right(meta(tmp_path / "a.mha", ElementNumberOfChannels=channels))


def test_the_channels_of_a_metaimage(tmp_path):
    channels = np.stack([VOXELS, VOXELS + 1])
    image = read_image(meta(tmp_path / "a.mha", channels.tobytes(order="F"), ElementNumberOfChannels="2"))
    np.testing.assert_array_equal(image.array, channels)


DAMAGED = bytes([*PACKED[: len(PACKED) // 2], PACKED[len(PACKED) // 2] ^ 255, *PACKED[len(PACKED) // 2 + 1 :]])


@pytest.mark.parametrize(
    ("entries", "data", "why"),
    [
        ({}, IN_FILE[:-3], "cut off"),
        ({"DimSize": "60000 60000 60000"}, IN_FILE, "cut off"),
        (IS_PACKED, PACKED[:-40], "cut off"),
        (IS_PACKED, DAMAGED, "damaged"),
        ({"DimSize": "6 5 3", **IS_PACKED}, PACKED, "damaged"),
        ({"DimSize": "6 5"}, IN_FILE, "DimSize"),
        ({"DimSize": "6 5 -4"}, IN_FILE, "-4 voxels"),
        ({"DimSize": "6 5 0"}, IN_FILE, "no voxels"),
        ({"NDims": "0"}, IN_FILE, "0 dimensions"),
        ({"NDims": "4", "DimSize": "6 5 2 2"}, IN_FILE, "6 x 5 x 2 x 2"),
        ({"NDims": "many"}, IN_FILE, "NDims"),
        ({"ElementType": "MET_STRING"}, IN_FILE, "MET_STRING"),
        ({"ElementSpacing": "nan 1.5 3"}, IN_FILE, "ElementSpacing"),
        ({"TransformMatrix": "2 0 0 0 2 0 0 0 2"}, IN_FILE, "no rotation"),
        ({"TransformMatrix": "0 0 0 0 0 0 0 0 0"}, IN_FILE, "no rotation"),
        ({"TransformMatrix": "1 0 0"}, IN_FILE, "TransformMatrix"),
        ({"Offset": "1 inf 1"}, IN_FILE, "Offset"),
    ],
)
def test_metaimages_that_cannot_be_are_refused(tmp_path, entries, data, why):
    assert why in str(refused(meta(tmp_path / "a.mha", data, **entries)))
    is_right(meta(tmp_path / "a.mha"))


# --- NRRD -----------------------------------------------------------------------------------------------------------

NRRD = ["type: short", "dimension: 3", "sizes: 6 5 4", "endian: little"]
PLACE = ["space: left-posterior-superior", "space directions: (2,0,0) (0,1.5,0) (0,0,3)", "space origin: (10,20,30)"]


def nrrd(path, lines, data=IN_FILE, encoding="raw"):
    path.write_bytes("\n".join(["NRRD0004", *NRRD, f"encoding: {encoding}", *lines]).encode() + b"\n\n" + data)
    return path


@pytest.mark.parametrize(
    ("lines", "matrix", "notices"),
    [
        (PLACE, RAS, []),
        (["space: RAS", *PLACE[1:]], LPS, []),
        (["space: left-anterior-superior", *PLACE[1:]], np.diag([-1.0, 1, 1, 1]) @ LPS, []),
        (["space: scanner-xyz", *PLACE[1:]], RAS, ["how the image is oriented"]),
        (["space: 3D-right-handed", *PLACE[1:]], RAS, ["how the image is oriented"]),
        (["space dimension: 3", *PLACE[1:]], RAS, ["how the image is oriented"]),
        (["spacings: 2 1.5 3"], np.diag([-2, -1.5, 3, 1]), ["how the image is oriented"]),
        ([], np.diag([-1.0, -1, 1, 1]), ["how the image is oriented", "1 mm was assumed"]),
        (PLACE[:2], np.diag([-2, -1.5, 3, 1]), ["first voxel was put at the origin"]),
        ([*PLACE, 'space units: "um" "um" "um"'], np.diag([1e-3, 1e-3, 1e-3, 1]) @ RAS, ["lengths in um"]),
        ([*PLACE, 'space units: "mm" "mm" "mm"'], RAS, []),
        ([*PLACE, "measurement frame: (0,1,0) (1,0,0) (0,0,1)", "old min: 0", "some:=thing", "# remark: no"], RAS, []),
    ],
)
def test_nrrds(tmp_path, lines, matrix, notices):
    is_right(nrrd(tmp_path / "a.nrrd", lines), matrix, notices)


def test_nrrds_packed_skipping_and_detached(tmp_path):
    is_right(nrrd(tmp_path / "a.nrrd", PLACE, gzip.compress(IN_FILE), "gzip"))
    is_right(nrrd(tmp_path / "a.nrrd", [*PLACE, "byte skip: 7"], b"7 bytes" + IN_FILE))
    is_right(nrrd(tmp_path / "a.nrrd", [*PLACE, "byte skip: -1"], b"some bytes" + IN_FILE))
    is_right(nrrd(tmp_path / "a.nrrd", [*PLACE, "line skip: 1"], b"one line\n" + IN_FILE))
    path = nrrd(tmp_path / "a.nhdr", [*PLACE, "data file: b.raw"], b"")
    assert "Put b.raw into the same folder" in refused(path).remedy
    (tmp_path / "b.raw").write_bytes(IN_FILE)
    is_right(path)
    for k in range(4):
        (tmp_path / f"s{k}.raw").write_bytes(VOXELS[..., k].tobytes(order="F"))
    is_right(nrrd(tmp_path / "a.nhdr", [*PLACE, "data file: s%d.raw 0 3 1 2"], b""))
    files = "".join(f"s{k}.raw\n" for k in range(4))
    header = "\n".join(["NRRD0004", *NRRD, "encoding: raw", *PLACE, "data file: LIST 2"])
    (tmp_path / "a.nhdr").write_text(f"{header}\n{files}")
    is_right(tmp_path / "a.nhdr")


@pytest.mark.parametrize("first", [True, False])
def test_an_axis_of_lists_becomes_channels(tmp_path, first):
    channels = np.stack([VOXELS, VOXELS + 1])
    data = (channels if first else channels.transpose(1, 2, 3, 0)).tobytes(order="F")
    directions = "none (2,0,0) (0,1.5,0) (0,0,3)" if first else "(2,0,0) (0,1.5,0) (0,0,3) none"
    header = [
        "NRRD0004",
        "type: short",
        "dimension: 4",
        f"sizes: {'2 6 5 4' if first else '6 5 4 2'}",
        f"kinds: {'list domain domain domain' if first else 'domain domain domain list'}",
        "endian: little",
        "encoding: raw",
        PLACE[0],
        f"space directions: {directions}",
        PLACE[2],
    ]
    (tmp_path / "a.nrrd").write_bytes("\n".join(header).encode() + b"\n\n" + data)
    image = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(image.array, channels)
    np.testing.assert_allclose(image.ijk_to_ras, RAS)


@pytest.mark.parametrize(
    ("lines", "data", "encoding", "why"),
    [
        (PLACE, IN_FILE[:100], "raw", "could not be read"),
        (PLACE, gzip.compress(IN_FILE)[:-30], "gzip", "could not be read"),
        (["spacings: nan 1.5 3"], IN_FILE, "raw", "its spacings"),
        ([PLACE[0], "space directions: (2,0,0) (0,nan,0) (0,0,3)"], IN_FILE, "raw", "its space directions"),
        ([*PLACE[:2], "space origin: (10,inf,30)"], IN_FILE, "raw", "its space origin"),
        ([*PLACE, 'space units: "um" "mm" "mm"'], IN_FILE, "raw", "a unit of its own"),
        ([PLACE[0], "space directions: (0,0,0) (0,1.5,0) (0,0,3)"], IN_FILE, "raw", "Refusing to change spacing"),
    ],
)
def test_nrrds_that_cannot_be_are_refused(tmp_path, lines, data, encoding, why):
    path = nrrd(tmp_path / "a.nrrd", lines, data, encoding)
    with pytest.raises(ImageError, match=why) as refusal:
        read_image(path)
    assert refusal.value.remedy
    is_right(nrrd(tmp_path / "a.nrrd", PLACE))


@pytest.mark.parametrize("sizes", ["6 5 1e9", "6 5 4.5", "6 5 -4", "6 5 0x4"])
def test_sizes_of_a_nrrd_that_are_no_whole_numbers_are_refused(tmp_path, sizes):
    path = nrrd(tmp_path / "a.nrrd", PLACE)
    content = path.read_bytes()
    assert b"sizes: 6 5 4\n" in content
    path.write_bytes(content.replace(b"sizes: 6 5 4\n", f"sizes: {sizes}\n".encode()))
    assert f"its sizes is '{sizes}'" in str(refused(path))


# --- others ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mgh", "a.mgz"])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32])
def test_freesurfers_files_are_nibabels(tmp_path, name, kind):
    turned = np.array([[-1, 0, 0, 90], [0, 0, 1.2, -120], [0, -0.9, 0, 100], [0, 0, 0, 1.0]])
    nib.MGHImage(VOXELS.clip(0, 250).astype(kind), turned).to_filename(tmp_path / name)
    image, judge = read_image(tmp_path / name), nib.load(tmp_path / name)
    np.testing.assert_array_equal(image.array[0], np.asarray(judge.dataobj))
    np.testing.assert_allclose(image.ijk_to_ras, judge.affine, atol=1e-5)
    assert image.array.dtype == kind and not image.notices


def test_freesurfers_files_without_orientation_with_frames_or_cut_off(tmp_path):
    path = tmp_path / "a.mgh"
    nib.MGHImage(VOXELS, np.eye(4)).to_filename(path)
    content = bytearray(path.read_bytes())
    content[28:30] = b"\0\0"  # goodRASFlag
    path.write_bytes(content)
    image = read_image(path)
    assert "coronal" in image.notices[0]
    axes = np.array([[-1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # x_r = -1, y_s = -1, z_a = 1, from FreeSurfer's description
    np.testing.assert_allclose(image.ijk_to_ras[:3, :3], axes)
    np.testing.assert_allclose(image.ijk_to_ras @ [3, 2.5, 2, 1], [0, 0, 0, 1])
    path.write_bytes(content[:300])
    assert "cut off" in str(refused(path))
    path.write_bytes(content[:80])
    assert "no such header" in str(refused(path))
    nib.MGHImage(np.stack([VOXELS] * 2, axis=-1), np.eye(4)).to_filename(path)
    assert "6 x 5 x 4 x 2" in str(refused(path))
    nib.load(path).slicer[..., 1].to_filename(tmp_path / "one.mgz")  # what the remedy says
    np.testing.assert_array_equal(read_image(tmp_path / "one.mgz").array[0], VOXELS)


@pytest.mark.parametrize("name", ["a.gipl", "a.gipl.gz"])
def test_gipl_has_no_orientation_and_that_is_said(tmp_path, name):
    import SimpleITK as sitk

    picture = sitk.GetImageFromArray(VOXELS.T)
    picture.SetSpacing((2, 1.5, 3))
    sitk.WriteImage(picture, str(tmp_path / name))
    is_right(tmp_path / name, np.diag([-2, -1.5, 3, 1]), ["do not say how an image is oriented"])
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-20])
    refused(tmp_path / name)


def test_minc_is_refused_by_name_and_read_once_saved_as_nifti(tmp_path):
    from scipy.io import netcdf_file

    path = tmp_path / "a.mnc"
    with netcdf_file(path, "w") as file:
        for axis, (step, size) in {"zspace": (3.0, 4), "yspace": (1.5, 5), "xspace": (2.0, 6)}.items():
            file.createDimension(axis, size)
            variable = file.createVariable(axis, "d", ())
            variable.step, variable.start, variable.spacing = step, 0.0, "regular__"
        image = file.createVariable("image", "h", ("zspace", "yspace", "xspace"))
        image[:] = VOXELS.T
        image.valid_range, image.signtype = np.array([0.0, 499.0]), "signed__"
        for name, value in (("image-min", 0.0), ("image-max", 499.0)):
            setattr(image, name, f"--->{name}")
            file.createVariable(name, "d", ()).data[()] = value
    error = refused(path)
    assert "MINC" in str(error) and "nibabel" in error.remedy
    minc = nib.load(path)
    nib.Nifti1Image(minc.get_fdata(dtype=np.float32), minc.affine).to_filename(tmp_path / "a.nii.gz")
    found = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(found.array[0], VOXELS.T, atol=0.01)
    np.testing.assert_allclose(found.ijk_to_ras, minc.affine)


@pytest.mark.parametrize("kind", ["mhd", "nhdr", "hdr", "list"])
def test_a_result_is_made_again_when_the_voxels_beside_a_header_have_changed(tmp_path, kind):
    from prosma.cli.app import main
    from prosma.image.reading import read_labels
    from tiny_model import make_tiny_package

    package = make_tiny_package(tmp_path / "model", spacing=None, patch_size=[16, 16, 16])
    voxels = [smooth_volume((16, 16, 16), seed=seed).array[0] for seed in (1, 2)]
    place = {"mhd": "b.raw", "nhdr": "b.raw", "hdr": "a.img", "list": "s7.raw"}[kind]
    if kind == "hdr":
        nib.Nifti1Pair(voxels[0], np.eye(4)).to_filename(tmp_path / "a.img")
        image = tmp_path / "a.hdr"
    elif kind == "list":
        image = meta(tmp_path / "a.mhd", b"", "s%d.raw 0 15 1", DimSize="16 16 16")
        for k in range(16):
            (tmp_path / f"s{k}.raw").write_bytes(voxels[0][..., k].tobytes(order="F"))
    else:
        fields = {"DimSize": "16 16 16"} if kind == "mhd" else {}
        image = meta(tmp_path / "a.mhd", b"", "b.raw", **fields) if kind == "mhd" else tmp_path / "a.nhdr"
        if kind == "nhdr":
            nrrd(image, ["data file: b.raw"], b"")
            image.write_text(image.read_text().replace("sizes: 6 5 4", "sizes: 16 16 16"))
        (tmp_path / "b.raw").write_bytes(voxels[0].tobytes(order="F"))
    command = ["segment", str(image), "-m", str(package.folder), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main(command) == 0
    first = read_labels(tmp_path / "out" / "a.seg.nrrd").array
    changed = voxels[1][..., 7] if kind == "list" else voxels[1]
    (tmp_path / place).write_bytes(changed.tobytes(order="F"))
    assert main(command) == 0
    assert (first != read_labels(tmp_path / "out" / "a.seg.nrrd").array).any()
