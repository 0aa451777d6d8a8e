"""Values of DICOM voxels: as the tags of each image say, whatever the others' are; colours; compressed images."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_writing import assert_true, data_set, item, noise, place, write, write_series
from pydicom.data import get_testdata_file
from pydicom.pixels import apply_modality_lut, convert_color_space
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image


def one(tmp_path, ds):
    return read_image(write(tmp_path / "x.dcm", place(ds, (0, 0, 0))))


# --- scaling --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [
        (lambda k: 1 if k == 0 else 0.01 * k, lambda k: 0),
        (lambda k: 1 if k < 6 else 300, lambda k: 0),
        (lambda k: 2 if k < 6 else 0.5, lambda k: 0),
        (lambda k: 1, lambda k: -1024 if k else -1024.5),
        (lambda k: 1, lambda k: -1024.5 if k else -1024),
        (lambda k: 1, lambda k: -1024),
        (lambda k: 0.00021362 * (k + 1), lambda k: 0),
        (lambda k: -1, lambda k: 100),
        (lambda k: 1e6, lambda k: 0),
    ],
)
@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_each_slice_has_its_own_scaling(tmp_path, slope, intercept, modality):
    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = f"{slope(k):.8g}", f"{intercept(k):g}"

    files = write_series(tmp_path / "a", noise(), edit=edit, modality=modality)
    image = read_image(tmp_path / "a")
    assert not image.notices
    assert_true(image, files)


def test_160000_stays_160000(tmp_path):
    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = (40 if k == 3 else 1), 0

    files = write_series(tmp_path / "a", np.full((5, 8, 9), 4000), edit=edit)
    image = read_image(tmp_path / "a")
    assert sorted(np.unique(image.array)) == [4000, 160000]
    assert_true(image, files)


def test_a_slope_in_some_slices_only(tmp_path):
    def edit(ds, k):
        if k % 3 == 0:
            ds.RescaleSlope, ds.RescaleIntercept = "2.5", "7"

    files = write_series(tmp_path / "a", noise(), edit=edit)
    assert_true(read_image(tmp_path / "a"), files)


@pytest.mark.parametrize("value", ["nan", "inf", "x", "1\\2"])
def test_a_slope_that_is_no_number_is_refused(tmp_path, value):
    files = write_series(tmp_path / "a", noise()[:3], edit=lambda ds, k: setattr(ds, "RescaleSlope", "1.5     "))
    data = files[1].read_bytes()
    files[1].write_bytes(data.replace(b"1.5 ", value.encode().ljust(4)))
    with pytest.raises(ImageError, match=r"im001.dcm: RescaleSlope \(0028,1053\)"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize("first", [0, 100])
def test_a_modality_table_is_applied(tmp_path, first):
    table = np.random.default_rng(0).permutation(65536)[:1000].astype(np.uint16)

    def edit(ds, k):
        ds.PixelRepresentation = 0
        ds.ModalityLUTSequence = item(LUTDescriptor=[1000, first, 16], ModalityLUTType="US", LUTData=table.tobytes())

    files = write_series(tmp_path / "a", noise(), edit=edit)
    image = read_image(tmp_path / "a")
    for k, file in enumerate(files):
        ds = pydicom.dcmread(file)
        wanted = apply_modality_lut(ds.pixel_array, ds)
        np.testing.assert_array_equal(image.array[0, :, :, k].T, wanted)
        np.testing.assert_array_equal(wanted, table[np.clip(ds.pixel_array.astype(int) - first, 0, 999)])


def test_real_world_values_are_ignored(tmp_path):
    def edit(ds, k):
        ds.RealWorldValueMappingSequence = item(RealWorldValueSlope=0.1, RealWorldValueIntercept=3.0)

    files = write_series(tmp_path / "a", noise(), edit=edit)
    image = read_image(tmp_path / "a")
    assert image.array.max() == noise().max()
    assert_true(image, files)


# --- how pixels are stored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4"])
def test_every_size_of_whole_numbers(tmp_path, kind):
    limits = np.iinfo(kind)
    pixels = np.random.default_rng(0).integers(limits.min, limits.max, (9, 11), endpoint=True).astype(kind)
    image = one(tmp_path, data_set(pixels))
    np.testing.assert_array_equal(image.array[0, ..., 0].T.astype(np.float64), pixels.astype(image.array.dtype))


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("rubbish", [False, True])
def test_twelve_bits_in_sixteen(tmp_path, signed, rubbish):
    values = noise((9, 11), high=4096) - 2048 * signed
    stored = (values & 0xFFF) | (0xA000 if rubbish else 0)  # overlays of old scanners lie in the upper bits
    ds = data_set(stored.astype(np.uint16), BitsStored=12, HighBit=11, PixelRepresentation=signed)
    np.testing.assert_array_equal(one(tmp_path, ds).array[0, ..., 0].T, values)


def test_bits_that_begin_above_the_lowest(tmp_path):
    values = noise((9, 11), high=4096)
    ds = data_set(((values << 4) | 0x5).astype(np.uint16), BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(one(tmp_path, ds).array[0, ..., 0].T, values)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_every_way_to_write_what_is_not_compressed(tmp_path, syntax):
    pixels = noise((9, 11))
    ds = place(data_set(pixels), (0, 0, 0))
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        ds.PixelData = pixels.astype(">i2").tobytes()
    path = tmp_path / "x.dcm"
    pydicom.dcmwrite(path, ds, enforce_file_format=True)
    np.testing.assert_array_equal(read_image(path).array[0, ..., 0].T, pixels)


@pytest.mark.parametrize(("bits", "stored"), [(12, 12), (1, 1), (16, 0), (16, 17)])
def test_bits_that_cannot_be_read_are_refused(tmp_path, bits, stored):
    ds = data_set(noise((8, 8)), BitsAllocated=bits, BitsStored=stored)
    with pytest.raises(ImageError, match=rf"{stored} of {bits} bits in each pixel \(BitsAllocated \(0028,0100\)\)"):
        one(tmp_path, ds)


def test_padding_keeps_its_value_and_is_told_where_it_is_brightest(tmp_path):
    pixels = noise((9, 11)) - 1000
    pixels[:3] = -2000
    image = one(tmp_path, data_set(pixels.astype(np.int16), "CT", PixelPaddingValue=-2000, RescaleIntercept="-24"))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, pixels - 24)
    assert not any("padding" in notice for notice in image.notices)
    pixels[:3] = 32000
    image = one(tmp_path, data_set(pixels.astype(np.int16), "CT", PixelPaddingValue=32000))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, pixels)
    assert any("padding value, which is brighter" in notice for notice in image.notices)


# --- black and white exchanged --------------------------------------------------------------------------------------


def test_inverted_greys_are_told_and_read_as_slicer_reads_them(tmp_path):
    values = noise((9, 11), high=4096)
    facts = {"BitsStored": 12, "HighBit": 11, "PhotometricInterpretation": "MONOCHROME1", "RescaleIntercept": "-24"}
    image = one(tmp_path, data_set(values.astype(np.uint16), "MR", **facts))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, 4095 - values - 24)
    assert any("MONOCHROME1" in notice for notice in image.notices)
    signed = noise((9, 11)) - 500
    image = one(tmp_path, data_set(signed, "MR", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, -1 - signed)


@pytest.mark.parametrize("modality", ["CT", "PT"])
def test_units_are_not_inverted_and_the_way_out_works(tmp_path, modality):
    ds = data_set(noise((9, 11)), modality, PhotometricInterpretation="MONOCHROME1", RescaleIntercept="-1024")
    with pytest.raises(ImageError, match="programs disagree") as refusal:
        one(tmp_path, ds)
    assert "Set that attribute to MONOCHROME2" in refusal.value.remedy
    ds.PhotometricInterpretation = "MONOCHROME2"
    np.testing.assert_array_equal(one(tmp_path, ds).array[0, ..., 0].T, noise((9, 11)) - 1024)


# --- colours --------------------------------------------------------------------------------------------------------

COLOURS = np.random.default_rng(1).integers(0, 256, (8, 10, 3)).astype(np.uint8)


def channels(image):
    return image.array[..., 0].transpose(2, 1, 0)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_colours_become_channels(tmp_path, planar, kind):
    pixels = COLOURS.astype(kind) * (1 if kind == np.uint8 else 257)
    ds = data_set(pixels, "OT", PlanarConfiguration=planar)
    if planar:
        ds.PixelData = np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes()
    np.testing.assert_array_equal(channels(one(tmp_path, ds)), pixels)


def test_luminance_and_chrominance_become_red_green_and_blue(tmp_path):
    stored = convert_color_space(COLOURS, "RGB", "YBR_FULL")
    ds = data_set(stored, "US", PhotometricInterpretation="YBR_FULL")
    wanted = convert_color_space(stored, "YBR_FULL", "RGB")
    assert np.abs(wanted.astype(int) - COLOURS).max() <= 3
    np.testing.assert_array_equal(channels(one(tmp_path, ds)), wanted)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_becomes_red_green_and_blue(tmp_path, bits):
    table = np.random.default_rng(2).integers(0, 256, (3, 256))
    index = noise((9, 11), high=256).astype(np.uint8)
    ds = data_set(index, "US", PhotometricInterpretation="PALETTE COLOR")
    for colour, values in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(ds, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, bits])
        data = values.astype("u1") if bits == 8 else (values * 257).astype("<u2")
        setattr(ds, f"{colour}PaletteColorLookupTableData", data.tobytes())
    image = one(tmp_path, ds)
    assert image.array.dtype == np.uint8
    np.testing.assert_array_equal(channels(image), table[:, index].transpose(1, 2, 0))


@pytest.mark.parametrize("photometric", ["HSV", "CMYK", "YBR_PARTIAL_420", "MONOCHROME2", ""])
def test_other_colours_are_refused(tmp_path, photometric):
    ds = data_set(COLOURS, "OT", PhotometricInterpretation=photometric)
    with pytest.raises(ImageError, match=r"3 samples in each pixel as .* \(PhotometricInterpretation \(0028,0004\)\)"):
        one(tmp_path, ds)


def test_grey_slices_among_coloured_ones_are_refused(tmp_path):
    write_series(tmp_path / "a", noise((4, 8, 10)))
    coloured = place(data_set(COLOURS, "MR"), (-30, 12, 15))
    write(tmp_path / "a" / "c.dcm", coloured)
    with pytest.raises(ImageError, match=r"c.dcm is 'RGB' of 8 bits and other slices of a are 'MONOCHROME2' of 16"):
        read_image(tmp_path / "a")


def test_colours_of_eight_and_sixteen_bits_are_not_mixed(tmp_path):
    write_series(tmp_path / "a", np.stack([COLOURS] * 3), (1, 1, 5), modality="MR")
    write(
        tmp_path / "a" / "z.dcm", place(data_set(COLOURS.astype(np.uint16) * 257, "MR"), (-30, 12, 20), spacing=(1, 1))
    )
    with pytest.raises(ImageError, match=r"z.dcm is 'RGB' of 16 bits"):
        read_image(tmp_path / "a")


# --- compressed -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "MR_small_RLE.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_bigendian.dcm",
        "MR_small_implicit.dcm",
        "MR_small_padded.dcm",
    ],
)
def test_one_image_in_every_coding(name):
    wanted = pydicom.dcmread(get_testdata_file("MR_small.dcm"))
    image = read_image(get_testdata_file(name))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, wanted.pixel_array)
    assert_true(image, [Path(get_testdata_file("MR_small.dcm"))])


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("SC_rgb_gdcm_KY.dcm", 0),
        ("SC_rgb_jpeg_gdcm.dcm", 0),
        ("SC_rgb_rle.dcm", 0),
        ("SC_rgb_jls_lossy_line.dcm", 3),
        ("SC_rgb_jpeg_dcmtk.dcm", 5),
        ("SC_rgb_jpeg_lossy_gdcm.dcm", 5),
        ("SC_rgb_dcmtk_+eb+cr.dcm", 5),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", 5),
        ("SC_ybr_full_422_uncompressed.dcm", 5),
    ],
)
def test_colours_in_every_coding(name, tolerance):
    """Bars of pure colours, 10 rows each: red, green, blue, black, and greys with them."""
    found = channels(read_image(get_testdata_file(name)))[5::10, 50].astype(int)
    bars = [[255, 0, 0], [255, 128, 128], [0, 255, 0], [128, 255, 128], [0, 0, 255], [128, 128, 255]]
    bars += [[0, 0, 0], [64, 64, 64], [192, 192, 192], [255, 255, 255]]
    np.testing.assert_allclose(found, bars, atol=tolerance)


def test_frames_of_compressed_films_are_theirs(tmp_path):
    ds = data_set(noise((6, 32, 40)).astype(np.uint16), "US", "3.1")
    plain = ds.pixel_array
    ds.compress(RLELossless)
    file = write(tmp_path / "film.dcm", ds)
    for number in (1, 4, 6):
        np.testing.assert_array_equal(read_image(file, series=number).array[0, ..., 0].T, plain[number - 1])
    film = get_testdata_file("examples_ybr_color.dcm")  # JPEG baseline, 30 frames
    pictures = [channels(read_image(film, series=number)).astype(int) for number in (1, 2, 30)]
    assert pictures[0].shape == (240, 320, 3)
    assert 0 < np.abs(pictures[0] - pictures[1]).mean() < np.abs(pictures[0] - pictures[2]).mean()


def test_a_compressed_series_has_each_slices_own_scaling(tmp_path):
    wanted = noise((5, 64, 64))

    def edit(ds, k):
        ds.RescaleSlope, ds.RescaleIntercept = (40 if k == 2 else 0.5), -3
        ds.compress(RLELossless, ds.pixel_array)

    files = write_series(tmp_path / "a", wanted, edit=edit)
    assert_true(read_image(tmp_path / "a"), files)


def jpeg2000(tmp_path, name, **changes):
    """A compressed file of GDCM's kind with other attributes around the same pixels."""
    ds = pydicom.dcmread(get_testdata_file("MR_small_jp2klossless.dcm"))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    ds.save_as(tmp_path / name)
    return tmp_path / name


def test_compressed_images_are_scaled_and_inverted_by_their_own_header(tmp_path):
    stored = pydicom.dcmread(get_testdata_file("MR_small.dcm")).pixel_array
    image = read_image(jpeg2000(tmp_path, "a.dcm", RescaleSlope="0.25", RescaleIntercept="-5.5"))
    np.testing.assert_allclose(image.array[0, ..., 0].T, stored * 0.25 - 5.5, rtol=1e-6)
    image = read_image(jpeg2000(tmp_path, "b.dcm", PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(image.array[0, ..., 0].T, -1 - stored)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", ["MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_RLE.dcm"])
def test_compressed_images_that_are_cut_off_are_refused(tmp_path, name, share):
    data = Path(get_testdata_file(name)).read_bytes()
    start = data.index(b"\xe0\x7f\x10\x00")
    (tmp_path / "x.dcm").write_bytes(data[: int(start + share * (len(data) - start))])
    with pytest.raises(ImageError, match=r"x.dcm") as refusal:
        read_image(tmp_path / "x.dcm")
    assert "again" in refusal.value.remedy


def test_an_unknown_coding_is_named(tmp_path):
    ds = place(data_set(noise((9, 11))), (0, 0, 0))
    from pydicom.encaps import encapsulate

    ds.PixelData = encapsulate([b"\x00" * 64])
    ds["PixelData"].is_undefined_length = True
    ds.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.201"
    with pytest.raises(ImageError, match="compressed as High-Throughput JPEG 2000") as refusal:
        read_image(write(tmp_path / "x.dcm", ds))
    assert "pylibjpeg" in refusal.value.remedy
