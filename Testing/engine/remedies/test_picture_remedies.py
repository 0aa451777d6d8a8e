"""Pictures that are refused, and what the refusals say is to be done (training/prosma/image/formats/pictures.py)."""

import struct

import numpy as np
import PIL.Image
import pytest
import SimpleITK

from prosma.image.reading import read_image
from remedies import refused

AGAIN = "Copy, download or export it again"

SHADES = np.random.default_rng(0).integers(0, 255, (18, 20, 3)).astype(np.uint8)
GREY = PIL.Image.fromarray(SHADES[..., 0])


def is_grey(path):
    np.testing.assert_array_equal(read_image(path).array[0, ..., 0].T, SHADES[..., 0])


@pytest.mark.parametrize(
    ("file", "keep", "name"),
    [
        ("a.jpg", -40, "image/formats/pictures.py: is cut off"),
        ("a.bmp", 30, "image/formats/pictures.py: is cut off"),
        ("a.bmp", -40, "image/formats/pictures.py: is cut off"),
        ("a.png", 3, "image/formats/pictures.py: is damaged or no picture"),
    ],
)
def test_a_cut_off_picture_is_copied_again(tmp_path, file, keep, name):
    GREY.save(tmp_path / file)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[:keep])
    refused(name, AGAIN, read_image, tmp_path / file)
    (tmp_path / file).write_bytes(content)
    np.testing.assert_allclose(
        read_image(tmp_path / file).array[0, ..., 0].T, np.asarray(PIL.Image.open(tmp_path / file)), atol=1
    )


def test_a_picture_gets_the_ending_of_its_kind(tmp_path):
    GREY.save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    error = refused(
        "image/formats/pictures.py: is a picture of another kind",
        "Give it the ending .png",
        read_image,
        tmp_path / "a.jpg",
    )
    (tmp_path / "a.jpg").rename(tmp_path / f"a{error.remedy.split()[-1].rstrip('.')}")
    is_grey(tmp_path / "a.png")


def tag(path, number, value, kind=None):
    """Sets a number in the first directory of a little-endian TIFF, or takes its entry away (None)."""
    content = bytearray(path.read_bytes())
    (place,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, place)
    for entry in range(place + 2, place + 2 + 12 * entries, 12):
        if struct.unpack_from("<H", content, entry)[0] == number:
            if value is None:
                struct.pack_into("<H", content, entry, 65000)
            else:
                struct.pack_into("<H", content, entry + 8, value)
    path.write_bytes(content)


TIFFS = {
    "image/formats/pictures.py: does not say what its values mean": (262, None, "Save it as PNG"),
    "image/formats/pictures.py: is stored as a negative": (262, 0, "Save it as PNG"),
    "image/formats/pictures.py: has its colours in CIELab": (262, 8, "Save it as PNG"),
    "image/formats/pictures.py: has voxels of ... bits, which cannot be read": (258, 64, "Save it with 32 bits"),
    "image/formats/pictures.py: values in each pixel, such as grey": (277, 2, "Save it as PNG"),
}


@pytest.mark.parametrize("words", TIFFS)
def test_odd_tiffs_are_saved_otherwise(tmp_path, words):
    number, value, remedy = TIFFS[words]
    GREY.save(tmp_path / "a.tif")
    tag(tmp_path / "a.tif", number, value)
    if number == 277:
        GREY.convert("LA").save(tmp_path / "a.tif")
    refused(words, remedy, read_image, tmp_path / "a.tif")
    GREY.save(tmp_path / "a.png")
    is_grey(tmp_path / "a.png")
    GREY.convert("F").save(tmp_path / "b.tif")  # 32 bits
    is_grey(tmp_path / "b.tif")


def test_tiffs_of_half_precision_of_planes_and_in_circles(tmp_path):
    GREY.convert("F").save(tmp_path / "a.tif")
    tag(tmp_path / "a.tif", 258, 16)
    refused("image/formats/pictures.py: bits with fractions", "Save it with 32 bits", read_image, tmp_path / "a.tif")
    GREY.convert("F").save(tmp_path / "a.tif")
    is_grey(tmp_path / "a.tif")
    planes = SimpleITK.GetImageFromArray(SHADES.astype(np.uint16), isVector=True)
    SimpleITK.WriteImage(planes, str(tmp_path / "b.tif"))
    tag(tmp_path / "b.tif", 284, 2)
    refused("image/formats/pictures.py: one after the other", "Save it as PNG", read_image, tmp_path / "b.tif")
    PIL.Image.fromarray(SHADES).save(tmp_path / "b.png")
    np.testing.assert_array_equal(read_image(tmp_path / "b.png").array[..., 0].transpose(2, 1, 0), SHADES)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    (place,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, place)
    struct.pack_into("<I", content, place + 2 + 12 * entries, place)
    (tmp_path / "c.tif").write_bytes(content)
    refused("image/formats/pictures.py: in a circle", AGAIN, read_image, tmp_path / "c.tif")
    is_grey(tmp_path / "a.tif")


def test_a_tiff_that_claims_more_than_its_bytes_could_hold_is_copied_again(tmp_path):
    GREY.save(tmp_path / "a.tif")
    tag(tmp_path / "a.tif", 256, 65535)
    tag(tmp_path / "a.tif", 257, 65535)
    refused("image/formats/pictures.py: is cut off", AGAIN, read_image, tmp_path / "a.tif")
    GREY.save(tmp_path / "a.tif")
    is_grey(tmp_path / "a.tif")
