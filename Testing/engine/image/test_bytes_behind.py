"""More bytes than a header accounts for: the voxels that it names are read, and that there was more is told."""

import gzip
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from dicom_writing import data_set, enhanced, noise, place, write
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import RLELossless

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image

VOXELS = np.random.default_rng(0).integers(0, 500, (6, 5, 4)).astype(np.int16)  # I, J, K
BYTES = VOXELS.tobytes(order="F")
META = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n"
    "Offset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 6 5 4\nElementType = MET_SHORT\n"
)
NRRD = (
    "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nendian: little\nspace: left-posterior-superior\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
)


def read(path) -> tuple[str, ...]:
    """What is told of the file, whose voxels are right."""
    image = read_image(path)
    np.testing.assert_array_equal(image.array[0], VOXELS)
    return image.notices


def told(path, count: int, name: str = "") -> None:
    (notice,) = read(path)
    words = f"{name or path.name} holds {count} byte{'s' if count > 1 else ''} behind its voxels, which were not used"
    assert words in notice, notice


def nifti(path) -> bytes:
    nib.Nifti1Image(VOXELS, np.eye(4)).to_filename(path)
    return path.read_bytes()


@pytest.mark.parametrize("more", [b"\0", b"behind" * 20, bytes(300_000)])
def test_nifti_plain_and_packed(tmp_path, more):
    plain = nifti(tmp_path / "a.nii")
    assert read(tmp_path / "a.nii") == ()
    (tmp_path / "a.nii").write_bytes(plain + more)
    told(tmp_path / "a.nii", len(more))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain + more))
    told(tmp_path / "a.nii.gz", len(more))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain) + gzip.compress(more))
    told(tmp_path / "a.nii.gz", len(more))
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(plain) + b"no gzip file")
    assert read(tmp_path / "a.nii.gz") == (), "the packed file ends before that"


def test_a_header_that_lost_its_last_slices_is_told(tmp_path):
    """The image is whole, dim[3] is not: half of it would be segmented."""
    plain = bytearray(nifti(tmp_path / "a.nii"))
    struct.pack_into("<h", plain, 46, 2)
    (tmp_path / "a.nii").write_bytes(plain)
    image = read_image(tmp_path / "a.nii")
    np.testing.assert_array_equal(image.array[0], VOXELS[..., :2])
    assert f"holds {len(BYTES) // 2} bytes behind its voxels" in image.notices[0]


def test_the_check_sum_counts_with_more_bytes_too(tmp_path):
    packed = bytearray(gzip.compress(nifti(tmp_path / "a.nii") + bytes(1000), compresslevel=0))
    packed[600] ^= 1  # a voxel
    (tmp_path / "a.nii.gz").write_bytes(packed)
    with pytest.raises(ImageError, match="damaged"):
        read_image(tmp_path / "a.nii.gz")


def test_the_voxels_of_a_pair(tmp_path):
    nib.Nifti1Pair(VOXELS, np.eye(4)).to_filename(tmp_path / "a.hdr")
    with (tmp_path / "a.img").open("ab") as file:
        file.write(bytes(9))
    told(tmp_path / "a.hdr", 9, "a.img")


def test_metaimage_in_one_file_in_two_and_packed(tmp_path):
    packed = zlib.compress(BYTES)
    one, two = tmp_path / "a.mha", tmp_path / "a.mhd"
    one.write_bytes(f"{META}ElementDataFile = LOCAL\n".encode() + BYTES + bytes(7))
    told(one, 7)
    header = f"{META}CompressedData = True\nElementDataFile = LOCAL\n"
    one.write_bytes(header.encode() + packed)
    assert read(one) == ()
    one.write_bytes(header.encode() + packed + bytes(7))
    told(one, 7)
    two.write_text(f"{META}ElementDataFile = b.raw\n")
    (tmp_path / "b.raw").write_bytes(BYTES + bytes(12))
    told(two, 12, "b.raw")
    two.write_text(f"{META}HeaderSize = -1\nElementDataFile = b.raw\n")
    (tmp_path / "b.raw").write_bytes(bytes(12) + BYTES)
    assert read(two) == (), "the voxels are those at the end"


def test_nrrd_in_one_file_in_two_and_packed(tmp_path):
    one, two = tmp_path / "a.nrrd", tmp_path / "a.nhdr"
    one.write_bytes(f"{NRRD}encoding: raw\n\n".encode() + BYTES)
    assert read(one) == ()
    one.write_bytes(f"{NRRD}encoding: raw\n\n".encode() + BYTES + b"0")
    told(one, 1)
    one.write_bytes(f"{NRRD}encoding: gzip\n\n".encode() + gzip.compress(BYTES))
    assert read(one) == ()
    one.write_bytes(f"{NRRD}encoding: gzip\n\n".encode() + gzip.compress(BYTES + bytes(40)))
    told(one, 40)
    two.write_text(f"{NRRD}encoding: raw\ndata file: b.raw\n")
    (tmp_path / "b.raw").write_bytes(BYTES + bytes(12))
    told(two, 12, "b.raw")
    odd = b"\x1f\x8b" + bytes(len(BYTES))  # begins as a packed file does, and is none
    (tmp_path / "b.raw").write_bytes(odd)
    assert "b.raw holds 2 bytes behind" in read_image(two).notices[0]
    (tmp_path / "b.raw").write_bytes(bytes(12) + BYTES)
    two.write_text(f"{NRRD}encoding: raw\nbyte skip: 12\ndata file: b.raw\n")
    assert read(two) == ()


def test_gipl(tmp_path):
    for name in ("a.gipl", "a.gipl.gz"):
        SimpleITK.WriteImage(SimpleITK.GetImageFromArray(VOXELS.T), str(tmp_path / name))
        assert len(read(tmp_path / name)) == 1, "orientation"
    (tmp_path / "a.gipl").write_bytes((tmp_path / "a.gipl").read_bytes() + bytes(5))
    assert "holds 5 bytes behind" in read(tmp_path / "a.gipl")[1]


def test_what_freesurfer_writes_behind_its_voxels_is_expected(tmp_path):
    """TR, flip angle, TE, TI and field of view; then tags with their lengths (mri.cpp)."""
    nib.MGHImage(VOXELS, np.eye(4)).to_filename(tmp_path / "a.mgh")
    start = (tmp_path / "a.mgh").read_bytes()[: 284 + len(BYTES)]
    scan = struct.pack(">5f", 2300, 0.157, 2.98, 900, 256)
    command = b"mri_convert in.nii out.mgz\0"
    tags = struct.pack(">iq", 3, len(command)) + command + struct.pack(">iq", 31, 400) + bytes(400)
    for footer in (b"", scan[:16], scan, scan + tags, scan[:16] + tags):
        (tmp_path / "a.mgh").write_bytes(start + footer)
        (tmp_path / "a.mgz").write_bytes(gzip.compress(start + footer))
        assert read(tmp_path / "a.mgh") == read(tmp_path / "a.mgz") == ()
    (tmp_path / "a.mgz").write_bytes(
        gzip.compress(start + BYTES + scan)
    )  # another frame, which the header does not name
    told(tmp_path / "a.mgz", len(BYTES) + 20)


def test_uncompressed_dicom(tmp_path):
    pixels = noise((16, 20))
    ds = place(data_set(pixels.astype(np.int16)), (0, 0, 0))
    write(tmp_path / "a.dcm", ds)
    assert not any("behind" in notice for notice in read_image(tmp_path / "a.dcm").notices)
    ds.PixelData = ds.PixelData + bytes(40)
    write(tmp_path / "a.dcm", ds)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0, ..., 0], pixels.T)
    assert any("a.dcm holds 40 bytes behind its voxels" in notice for notice in image.notices), image.notices


def test_more_compressed_images_than_the_header_names(tmp_path):
    volume = noise((4, 16, 20))
    ds = enhanced(volume, np.arange(4) * 2.5)
    ds.compress(RLELossless)
    write(tmp_path / "a.dcm", ds)
    assert read_image(tmp_path / "a.dcm").notices == ()
    frames = list(generate_frames(ds.PixelData, number_of_frames=4))
    ds.PixelData = encapsulate([*frames, frames[0]])
    write(tmp_path / "a.dcm", ds)
    image = read_image(tmp_path / "a.dcm")
    np.testing.assert_array_equal(image.array[0], volume.T)
    assert "a.dcm holds 1 image more than its header names" in image.notices[0]
