"""DICOM series that are refused, and what the refusals say is to be done (training/prosma/image/dicom)."""

import sys

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicom_writing import data_set, enhanced, noise, place, write, write_series
from pydicom.uid import UID

from prosma.image.dicom import files as dicom_files
from prosma.image.reading import read_image
from remedies import refused

AGAIN = "Copy or export it again"
VOLUME = noise((4, 16, 20))
STORAGE = "1.2.840.10008.5.1.4.1.1."


def series(folder, edit=None, **attributes):
    """Four slices; those that `edit(ds, k)` leaves alone are right."""
    write_series(folder, VOLUME, edit=edit, **attributes)
    return folder


def is_right(folder, volume=VOLUME, **options):
    np.testing.assert_array_equal(read_image(folder, **options).array[0], volume.T)


def only(number, change):
    """Changes one slice of a series."""
    return lambda ds, k: change(ds) if k == number else None


def put(keyword, value, slice=2):
    return only(slice, lambda ds: setattr(ds, keyword, value))


def raw(keyword, vr, value, slice=2):
    """An element as a damaged file has it, past the checks of pydicom."""

    def change(ds):
        tag = pydicom.datadict.tag_for_keyword(keyword)
        ds[tag] = pydicom.DataElement(tag, vr, value, validation_mode=pydicom.config.IGNORE)

    return only(slice, change)


def lacks(*keywords):
    def change(ds, _k):
        for keyword in keywords:
            delattr(ds, keyword)

    return change


# --- damage: the same series, exported again, is read

DAMAGED = {
    "image/dicom/frames.py: is damaged: it has no ...": only(2, lambda ds: delattr(ds, "Rows")),
    "image/dicom/frames.py: is not two directions at right angles": put("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]),
    "image/dicom/frames.py: is 0, so all its values would be one": put("RescaleSlope", "0"),
    "image/dicom/frames.py: is not two sizes above 0": put("PixelSpacing", [0, 1]),
    "image/dicom/frames.py: is not ...": raw("SliceThickness", "LO", "thick"),
    "image/dicom/frames.py: is ...": raw("NumberOfFrames", "IS", "-1"),
    "image/dicom/values.py: bits in each pixel": put("BitsStored", 20),
    "image/dicom/values.py: it has no voxels": only(2, lambda ds: delattr(ds, "PixelData")),
    "image/dicom/values.py: its voxels cannot be read": only(
        2, lambda ds: setattr(ds, "PixelData", ds.PixelData[:100])
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_series_is_exported_again(tmp_path, name):
    series(tmp_path / "mr", DAMAGED[name])
    error = refused(name, AGAIN, read_image, tmp_path / "mr")
    assert "im002.dcm" in error.message
    is_right(series(tmp_path / "mr"))


UNKNOWN = b"DICM\2\0\0\0WL"  # a representation that does not exist
BYTES = {
    "image/dicom/frames.py: named(keyword)} cannot be read": (
        b"\x28\0\x10\0US\2\0\x10\0",
        b"\x28\0\x10\0US\1\0\x10",
    ),
    "image/dicom/files.py: The header of": (b"DICM\2\0\0\0UL", UNKNOWN),
}


@pytest.mark.parametrize("name", BYTES)
def test_a_file_with_damaged_elements_is_exported_again(tmp_path, name):
    folder = series(tmp_path / "mr")
    content = (folder / "im002.dcm").read_bytes()
    old, new = BYTES[name]
    assert old in content
    (folder / "im002.dcm").write_bytes(content.replace(old, new, 1))
    refused(name, AGAIN, read_image, folder)
    is_right(series(folder))


def test_a_turned_slice_is_exported_again_or_taken_out(tmp_path):
    turn = np.radians(0.1)
    axes = [np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0]
    volume, spacing = noise((4, 512, 512)), (1.0, 1.0, 1.0)
    write_series(tmp_path / "mr", volume, spacing, edit=put("ImageOrientationPatient", axes, slice=3))
    name = "image/dicom/grid.py: mm from its place among the slices"
    refused(name, "Take that file out of the folder", read_image, tmp_path / "mr")
    (tmp_path / "mr/im003.dcm").unlink()
    is_right(tmp_path / "mr", volume[:3])
    write_series(tmp_path / "mr", volume)
    is_right(tmp_path / "mr", volume)


def test_damaged_headers_and_files_that_cannot_be_read(tmp_path):
    folder, file = series(tmp_path / "mr"), tmp_path / "mr/im002.dcm"
    content = file.read_bytes()
    (folder / "more.dcm").write_bytes(content[:400])  # nothing tells its series
    refused("image/dicom/reading.py: Or take it out of the folder", "Or take it out of the folder", read_image, folder)
    (folder / "more.dcm").unlink()
    is_right(folder)
    file.unlink()
    file.symlink_to("nowhere")
    refused("image/dicom/files.py: Check whether you may read it", "Check whether you may read it", read_image, folder)
    file.unlink()
    file.write_bytes(content)
    is_right(folder)


@pytest.mark.parametrize(
    "name", ["image/dicom/files.py: it is cut off", "image/dicom/files.py: ... is damaged or cut off."]
)
def test_a_file_that_is_damaged_or_gone_meanwhile_is_exported_again(tmp_path, monkeypatch, name):
    folder = series(tmp_path / "mr")
    usual = dicom_files.read_whole

    def damaged(file):
        content = file.read_bytes()
        file.unlink()
        if "cut off." in name:
            file.write_bytes(content.replace(b"DICM\2\0\0\0UL", UNKNOWN))
        return usual(file)

    with monkeypatch.context() as patched:
        patched.setattr("prosma.image.dicom.values.read_whole", damaged)
        refused(name, AGAIN, read_image, folder)
    is_right(series(tmp_path / "mr"))


def test_frames_are_as_many_as_are_described(tmp_path):
    file = tmp_path / "a.dcm"
    ds = enhanced(VOLUME, np.arange(4) * 2.5)
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:3]
    write(file, ds)
    refused("image/dicom/frames.py: but describes", AGAIN, read_image, file)
    write(file, enhanced(VOLUME, np.arange(4) * 2.5))
    is_right(file)


@pytest.mark.parametrize(
    ("offsets", "name"),
    [
        ([0, 2.5, 5], "image/dicom/frames.py: names ..., ... is"),
        ([7, 9.5, 12, 14.5], "image/dicom/frames.py: begins neither with 0"),
    ],
)
def test_a_dose_grid_tells_the_places_of_its_frames(tmp_path, offsets, name):
    ds = place(data_set(VOLUME.astype(np.uint16), "RTDOSE", "481.2"), (1, 2, 3))
    ds.DoseGridScaling = "0.5"
    ds.GridFrameOffsetVector = [float(value) for value in offsets]
    refused(name, AGAIN, read_image, write(tmp_path / "a.dcm", ds))
    ds.GridFrameOffsetVector = [0.0, 2.5, 5.0, 7.5]
    np.testing.assert_allclose(read_image(write(tmp_path / "a.dcm", ds)).array[0], 0.5 * VOLUME.T)


def test_slices_without_places_are_exported_with_their_geometry(tmp_path):
    keywords = ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness")
    series(tmp_path / "mr", lacks(*keywords))
    refused("image/dicom/grid.py: tell neither their places", "with its geometry", read_image, tmp_path / "mr")
    is_right(series(tmp_path / "mr"))


# --- what is no image, or several


def test_the_series_is_given_and_not_what_belongs_to_it(tmp_path):
    folder = tmp_path / "study"
    seg = data_set(VOLUME[0].astype(np.uint8), "SEG", "66.4")
    file = write(folder / "seg.dcm", seg)
    refused(
        "image/dicom/reading.py: is ..., not an image", "Give the image series that it belongs to", read_image, file
    )
    refused(
        "image/dicom/reading.py: holds no DICOM images, only",
        "Give the image series that it belongs to",
        read_image,
        folder,
    )
    is_right(series(folder / "mr"))
    (tmp_path / "empty").mkdir()
    refused(
        "image/dicom/reading.py: Give the folder with the files of one series",
        "Give the folder",
        read_image,
        tmp_path / "empty",
    )
    is_right(folder / "mr")


def test_one_of_several_volumes_is_chosen_or_moved(tmp_path):
    folder = series(tmp_path / "mr")
    write_series(folder, VOLUME + 1, prefix="other", SeriesInstanceUID="1.2.3.5", SeriesDescription="second")
    name = "image/dicom/volumes.py: or move its files to a folder of their own"
    refused(name, "--series", read_image, folder)
    is_right(folder, VOLUME + 1, series="second")
    refused("image/dicom/volumes.py: holds no volume", "It holds ", read_image, folder, series="third")
    is_right(folder, VOLUME + 1, series=2)
    (tmp_path / "second").mkdir()
    for file in folder.glob("other*"):
        file.rename(tmp_path / "second" / file.name)
    is_right(folder), is_right(tmp_path / "second", VOLUME + 1)


def test_a_folder_of_very_many_files(tmp_path, monkeypatch):
    series(tmp_path / "all" / "a"), series(tmp_path / "all" / "b", SeriesInstanceUID="1.2.3.5")
    monkeypatch.setattr(dicom_files, "MOST_FILES", 5)
    refused("image/dicom/files.py: holds more than", "Give the folder of one series", read_image, tmp_path / "all")
    is_right(tmp_path / "all" / "a")


# --- other kinds of pixels


def test_grey_and_colour_are_not_mixed_and_other_colours_are_exported_as_rgb(tmp_path):
    colours = np.stack([VOLUME.astype(np.uint8)] * 3, -1)
    folder = series(tmp_path / "mr", modality="OT")
    for k in (4, 5):
        ds = place(data_set(colours[0], "OT"), (-30, 12, 5 + 2.5 * k))
        write(folder / f"im00{k}.dcm", ds)
    refused(
        "image/dicom/values.py: Give the files of one kind in a folder of their own",
        "a folder of their own",
        read_image,
        folder,
    )
    (tmp_path / "colours").mkdir()
    for k in (4, 5):
        (folder / f"im00{k}.dcm").rename(tmp_path / f"colours/{k}.dcm")
    is_right(folder)
    assert read_image(tmp_path / "colours").array.shape == (3, 20, 16, 2)
    ds = data_set(colours[0], "OT", PhotometricInterpretation="HSV")
    refused(
        "image/dicom/values.py: samples in each pixel as",
        "Export it again as MONOCHROME2 or RGB",
        read_image,
        write(tmp_path / "a.dcm", ds),
    )
    ds.PhotometricInterpretation = "RGB"
    assert read_image(write(tmp_path / "a.dcm", ds)).array.shape[0] == 3


def test_a_coding_without_a_decoder_is_exported_uncompressed(tmp_path, monkeypatch):
    ds = place(data_set(VOLUME[0].astype(np.uint16)), (0, 0, 0))
    plain = ds.PixelData
    ds.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.201")  # HTJ2K
    ds.PixelData = pydicom.encaps.encapsulate([plain])
    ds["PixelData"].is_undefined_length = True
    write(tmp_path / "a.dcm", ds)
    from pydicom.pixels import get_decoder

    if get_decoder(UID("1.2.840.10008.1.2.4.201")).is_available:
        pytest.skip("a decoder for HTJ2K is installed here")
    refused(
        "image/dicom/values.py: for which there is no decoder here",
        "or export it uncompressed",
        read_image,
        tmp_path / "a.dcm",
    )
    write(tmp_path / "a.dcm", place(data_set(VOLUME[0].astype(np.uint16)), (0, 0, 0)))
    is_right(tmp_path / "a.dcm", VOLUME[:1])


def test_pydicom_is_needed(tmp_path, monkeypatch):
    folder = series(tmp_path / "mr")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "pydicom", None)
        refused(
            "image/dicom/files.py: DICOM files are read by pydicom 3", 'pip install "pydicom>=3"', read_image, folder
        )
    is_right(folder)


# --- what other programs convert


def test_mosaics_and_tilted_series_are_given_as_nifti(tmp_path):
    """Here nibabel writes what dcm2niix would; that it does is seen in findings/dicom.sh."""
    series(tmp_path / "mosaic", lambda ds, k: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]))
    refused("image/dicom/frames.py: is a mosaic", "Convert the series with dcm2niix", read_image, tmp_path / "mosaic")

    def tilt(ds, k):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y + 1.2 * k, z]

    series(tmp_path / "tilted", tilt)
    refused(
        "image/dicom/grid.py: as by a tilted CT gantry", "Convert it with dcm2niix", read_image, tmp_path / "tilted"
    )
    nib.Nifti1Image(VOLUME.T.astype(np.int16), np.diag([-0.8, -0.9, 2.5, 1])).to_filename(tmp_path / "mr_Tilt_1.nii.gz")
    is_right(tmp_path / "mr_Tilt_1.nii.gz")
