"""Pictures of every kind that the standards allow, and damage that the libraries read over without an error."""

import io
import random
import struct

import numpy as np
import PIL.Image
import pytest
from picture_fuzz import DAMAGED, GREY, GREY_ALPHA, PALETTE, PNG_KINDS, RGB, png, samples

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image


def picture(path, content):
    """(rows, columns, channels) of a file with this content, and the notices."""
    path.write_bytes(content)
    image = read_image(path)
    return image.array[..., 0].transpose(2, 1, 0), " ".join(image.notices)


@pytest.mark.parametrize("kind", PNG_KINDS, ids=str)
def test_every_kind_of_png_is_read_to_the_last_value_or_refused(tmp_path, kind):
    depth, colour, _interlaced = kind
    if colour == GREY_ALPHA:
        with pytest.raises(ImageError, match="grey picture with transparency"):
            picture(tmp_path / "a.png", png(*kind))
        return
    found, notices = picture(tmp_path / "a.png", png(*kind))
    expected = samples(depth, colour, 20, 18)
    if colour == PALETTE:
        expected = (np.arange(3 << depth) % 256).reshape(-1, 3)[expected[..., 0]]
    elif colour == GREY and depth < 8:  # PNG, 13.12: by replication of the bits
        expected = expected * (255 // ((1 << depth) - 1))
    np.testing.assert_array_equal(found, expected[..., :3])
    assert ("transparency" in notices) == (expected.shape[2] == 4)


def tiff(pages=1):
    stream = io.BytesIO()
    shades = [PIL.Image.fromarray(samples(8, GREY, 20, 18)[..., 0].astype(np.uint8))] * pages
    shades[0].save(stream, "TIFF", save_all=pages > 1, append_images=shades[1:])
    data = bytearray(stream.getvalue())
    (place,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, place)
    return (
        data,
        place,
        {struct.unpack_from("<H", data, n)[0]: n for n in range(place + 2, place + 2 + 12 * entries, 12)},
    )


@pytest.mark.parametrize("pages", [1, 2])
def test_tiff_pages_that_lead_back_are_refused_and_not_followed_for_ever(tmp_path, pages):
    data, place, tags = tiff(pages)
    struct.pack_into("<I", data, place + 2 + 12 * len(tags), place)
    with pytest.raises(ImageError, match="in a circle"):
        picture(tmp_path / "a.tif", bytes(data))


@pytest.mark.parametrize(("at", "kind", "value"), [(0, "H", 65000), (4, "I", 8)], ids=["missing", "eight values"])
def test_a_tiff_that_does_not_say_what_its_values_mean_is_refused(tmp_path, at, kind, value):
    """ITK takes it for a negative."""
    data, _place, tags = tiff()
    struct.pack_into(f"<{kind}", data, tags[262] + at, value)
    with pytest.raises(ImageError, match="PhotometricInterpretation"):
        picture(tmp_path / "a.tif", bytes(data))


def raw_tiff(values, planar=False, sample_format=1, extra=None):
    """A TIFF 6.0 of one strip for each plane, written here: Pillow does not write such."""
    values = np.atleast_3d(values)
    rows, columns, samples = values.shape
    planes = [np.ascontiguousarray(values[..., n]) for n in range(samples)] if planar else [values]
    data = [plane.astype(values.dtype.newbyteorder("<")).tobytes() for plane in planes]
    bits, body = [8 * values.dtype.itemsize] * samples, b"".join(data)
    fields = {256: [columns], 257: [rows], 258: bits, 259: [1], 262: [2 if samples >= 3 else 1], 277: [samples]}
    fields |= {
        278: [rows],
        279: [len(each) for each in data],
        284: [2 if planar else 1],
        339: [sample_format] * samples,
    }
    fields |= {338: extra} if extra else {}
    fields[273] = [8 + sum(len(each) for each in data[:n]) for n in range(len(data))]
    end = 8 + len(body) + 2 + 12 * len(fields) + 4
    entries, more = b"", b""
    for tag, numbers in sorted(fields.items()):
        packed_numbers = struct.pack(f"<{len(numbers)}I", *numbers)
        inline = packed_numbers if len(numbers) == 1 else struct.pack("<I", end + len(more))
        more += b"" if len(numbers) == 1 else packed_numbers
        entries += struct.pack("<HHI", tag, 4, len(numbers)) + inline
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(body))
        + body
        + struct.pack("<H", len(fields))
        + entries
        + bytes(4)
        + more
    )


@pytest.mark.parametrize("planar", [False, True], ids=["together", "apart"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "f2", "f4"])
@pytest.mark.parametrize("samples", [1, 2, 3, 4, 5])
def test_every_layout_of_a_tiff_is_read_to_the_last_value_or_refused(tmp_path, samples, kind, planar):
    """ITK takes half precision for whole numbers, signed planes for unsigned ones, grey with transparency for noise."""
    values = np.random.default_rng(samples).integers(0 if kind[0] == "u" else -99, 99, (18, 20, samples)).astype(kind)
    values = values / np.float32(99) if kind[0] == "f" else values
    content = raw_tiff(
        values.astype(kind), planar, {"u": 1, "i": 2, "f": 3}[kind[0]], [2] if samples in (2, 4) else None
    )
    try:
        found, _notices = picture(tmp_path / "a.tif", content)
    except ImageError as error:
        assert samples in (2, 5) or kind == "f2" or (planar and (samples, kind) != (3, "u1")), error
        return
    np.testing.assert_array_equal(found, values.astype(kind)[..., :3])


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "jp2"])
def test_a_picture_under_the_ending_of_another_kind_is_told_its_own(tmp_path, kind):
    shades = PIL.Image.fromarray(samples(8, RGB, 20, 18).astype(np.uint8))
    shades.save(tmp_path / f"right.{kind}", **({"quality": 100, "subsampling": 0} if kind == "jpg" else {}))
    content = (tmp_path / f"right.{kind}").read_bytes()
    expected, _notices = picture(tmp_path / f"right.{kind}", content)
    for other in ("png", "jpeg", "tiff", "bmp", "jp2"):
        if other[:3] != kind[:3] and (other, kind) != ("jpeg", "jpg"):
            with pytest.raises(ImageError, match=rf"another kind.*Give it the ending \.{kind}\."):
                picture(tmp_path / f"a.{other}", content)
    np.testing.assert_array_equal(picture(tmp_path / f"a.{kind}", content)[0], expected)
    if kind == "jp2":
        with pytest.raises(ImageError, match=r"Give it the ending \.jp2\."):
            picture(tmp_path / "A.JP2", content)
    else:
        np.testing.assert_array_equal(picture(tmp_path / f"A.{kind.upper()}", content)[0], expected)
    with pytest.raises(ImageError, match="damaged or no picture"):
        picture(tmp_path / f"b.{kind}", b"hello, I am text")


@pytest.mark.parametrize("name", ["scan", "scan.gz", "scan.nii.bz2", "scan.npy", "scan.zip", "scan.txt"])
def test_a_file_without_a_known_ending_gets_the_one_that_the_refusal_asks_for(tmp_path, name):
    import nibabel

    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "a.nii.gz")
    path = (tmp_path / "a.nii.gz").rename(tmp_path / name)
    with pytest.raises(ImageError, match=r"no ending of a format that is known.*give it the ending.*\.nii\.gz"):
        read_image(path)
    np.testing.assert_array_equal(read_image(path.rename(tmp_path / "scan.nii.gz")).array[0], voxels)


def jpeg(**options):
    shades = np.random.default_rng(0).integers(0, 255, (40, 48, 3)).astype(np.uint8)
    stream = io.BytesIO()
    PIL.Image.fromarray(shades).save(stream, "JPEG", **options)
    return bytearray(stream.getvalue())


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}], ids=str)
def test_damage_that_a_jpeg_reader_only_mutters_about_is_told(tmp_path, capfd, options):
    assert "damaged" not in picture(tmp_path / "good.jpg", bytes(jpeg(**options)))[1]
    told, chance = 0, random.Random(0)
    for number in range(12):
        data = jpeg(**options)
        first, last = data.find(b"\xff\xda") + 14, len(data) - 2
        middle = chance.randrange(first, last - 200)
        del data[middle : middle + 150]  # a hole, as on a bad disk; its end is there
        try:
            notices = picture(tmp_path / f"{number}.jpg", bytes(data))[1]
        except ImageError:
            continue
        told += "is damaged, so parts of it may be wrong" in notices
    assert told >= 6, "but for holes that happen to fit"
    assert not capfd.readouterr().out, "on stdout are other things"


def test_a_png_with_chunks_that_are_too_short_is_read_or_refused_in_a_sentence(tmp_path):
    for name in (b"acTL", b"eXIf", b"pHYs", b"tRNS"):
        for length in range(4):
            try:
                found, _notices = picture(tmp_path / "a.png", png(8, GREY, 0, more=[(name, bytes(length))]))
            except ImageError:
                continue
            np.testing.assert_array_equal(found, samples(8, GREY, 20, 18))


def test_damaged_pictures_are_the_same_for_a_seed_and_differ_between_seeds():
    for damage in DAMAGED.values():
        assert damage(random.Random(3)) == damage(random.Random(3))
        assert len({damage(random.Random(seed)) for seed in range(30)}) > 20
