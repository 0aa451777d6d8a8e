"""DICOM objects that are no images are called what they are, with a way out; real series against pydicom's reading."""

import json

import numpy as np
import pydicom
import pytest
from dicom_writing import STORAGE, assert_true, data_set, item, noise, place, write, write_series
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image, read_labels

OBJECTS = [
    ("66.4", "SEG", "a DICOM segmentation"),
    ("66.7", "SEG", "a DICOM segmentation"),
    ("66.5", "SEG", "a surface segmentation"),
    ("481.3", "RTSTRUCT", "a set of contours (RTSTRUCT)"),
    ("481.5", "RTPLAN", "a radiotherapy plan"),
    ("481.8", "RTPLAN", "a radiotherapy plan"),
    ("88.11", "SR", "a structured report (SR)"),
    ("88.33", "SR", "a structured report (SR)"),
    ("88.67", "SR", "a structured report (SR)"),
    ("88.59", "KO", "a selection of key images (KO)"),
    ("11.1", "PR", "a presentation state (PR)"),
    ("11.2", "PR", "a presentation state (PR)"),
    ("104.1", "DOC", "a PDF document"),
    ("104.2", "DOC", "a text document"),
    ("104.3", "M3D", "a surface mesh"),
    ("66", "MR", "raw data of a scanner"),
    ("66.1", "REG", "a spatial registration"),
    ("66.3", "REG", "a deformation field"),
    ("67", "RWV", "a real world value mapping"),
    ("9.1.1", "ECG", "a waveform"),
    ("4.2", "MR", "MR spectroscopy"),
    ("77.1.4.1", "XC", "a video"),
    ("77.1.6", "SM", "a whole slide microscopy image"),
    ("481.4", "RTRECORD", "a DICOM object without an image (RT Beams Treatment Record Storage)"),
    ("99.99", "SEG", "a DICOM segmentation"),
    ("99.99", "ZZ", "a DICOM object without an image"),
]
WITH_PIXELS = {"66.4", "66.7", "77.1.4.1", "77.1.6"}


def an_object(storage: str, modality: str) -> Dataset:
    if storage in WITH_PIXELS:
        return data_set(noise((6, 8, 9)).astype(np.uint8), modality, storage)
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID = STORAGE + storage
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID = generate_uid()
    ds.PatientName, ds.PatientID, ds.Modality = "Kestrel^Ophelia", "SECRET-77", modality
    ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.3", "1.2.3.99"
    return ds


@pytest.mark.parametrize(("storage", "modality", "what"), OBJECTS)
def test_what_is_no_image_is_called_what_it_is(tmp_path, storage, modality, what):
    file = write(tmp_path / "a" / "x.dcm", an_object(storage, modality))
    for path, text in ((file, f"x.dcm is {what}, not an image."), (tmp_path / "a", f"no DICOM images, only {what}.")):
        for read in (read_image, read_labels):
            with pytest.raises(ImageError) as refusal:
                read(path)
            assert text in str(refusal.value)
            assert refusal.value.remedy
            assert "Kestrel" not in str(refusal.value)


def test_it_is_counted_beside_images(tmp_path):
    files = write_series(tmp_path / "a", noise())
    for number, (storage, modality, _) in enumerate(OBJECTS):
        write(tmp_path / "a" / f"x{number:02d}.dcm", an_object(storage, modality))
    image = read_image(tmp_path / "a")
    assert_true(image, files)
    (notice,) = image.notices
    assert f"{len(OBJECTS)} of {len(OBJECTS) + 12} files in a were not used" in notice
    assert "3 a structured report (SR) (x06.dcm, x07.dcm, x08.dcm)" in notice


def test_the_way_out_of_a_segmentation_works(tmp_path):
    """A segmentation names the series that it belongs to; the folder of that series can be read."""
    files = write_series(tmp_path / "images", noise())
    seg = an_object("66.4", "SEG")
    seg.ReferencedSeriesSequence = item(SeriesInstanceUID="1.2.3.4")
    with pytest.raises(ImageError, match="Give the image series that it belongs to"):
        read_image(write(tmp_path / "seg.dcm", seg))
    assert_true(read_image(tmp_path / "images", series=seg.ReferencedSeriesSequence[0].SeriesInstanceUID), files)


def test_an_image_without_its_size_is_damaged(tmp_path):
    ds = place(data_set(noise((8, 9))), (0, 0, 0))
    del ds.Rows
    with pytest.raises(ImageError, match=r"x.dcm is damaged: it has no Rows \(0028,0010\)"):
        read_image(write(tmp_path / "x.dcm", ds))


def test_an_image_without_voxels_is_cut_off(tmp_path):
    ds = place(data_set(noise((8, 9))), (0, 0, 0))
    del ds.PixelData
    with pytest.raises(ImageError, match=r"x.dcm is cut off: it has no voxels \(PixelData \(7fe0,0010\)\)"):
        read_image(write(tmp_path / "x.dcm", ds))


@pytest.mark.parametrize("name", ["rtplan.dcm", "rtstruct.dcm", "reportsi.dcm", "waveform_ecg.dcm", "liver_1frame.dcm"])
def test_pydicoms_own_examples(name):
    with pytest.raises(ImageError, match="not an image"):
        read_image(get_testdata_file(name))


def test_a_name_that_pydicom_would_print_is_not_printed(tmp_path, capsys, recwarn):
    ds = an_object("88.11", "SR")
    ds.PatientName = "Kestrel=" * 5
    ds.PatientBirthDate = "SECRET-77"
    file = write(tmp_path / "x.dcm", ds)
    files = write_series(tmp_path / "a", noise()[:3])
    data = files[1].read_bytes()
    files[1].write_bytes(data.replace(b"SECRET-77 ", b"\xff\xfe\x01\x02SECRE "))
    recwarn.clear()
    with pytest.raises(ImageError):
        read_image(file)
    assert_true(read_image(tmp_path / "a"), files)
    told = capsys.readouterr()
    assert not recwarn.list
    assert "SECRE" not in told.out + told.err


# --- the real series beside the repository --------------------------------------------------------------------------

REAL = {
    "ct_abdomen_chaos": 8,
    "ct_liver_seg_object": 3,
    "mr_hippocampus_crop": 32,
    "mr_jpeg2000": 4,
    "mr_jpegls": 4,
    "mr_non_isotropic": 4,
    "mr_rgb": 4,
    "mr_rle": 4,
    "mr_sagittal_ge": 4,
    "mr_sagittal_philips": 4,
}
NEED_A_DECODER = ("mr_jpeg2000", "mr_jpegls", "mr_rgb")  # for pydicom, which is the judge here


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_series_against_pydicom(shared, name):
    folder = shared / "robust_volumes" / "dicom" / name
    image = read_image(folder)
    files = sorted(folder.iterdir())
    assert len(files) == REAL[name] == image.shape[2]
    assert not image.notices
    if name not in NEED_A_DECODER:
        assert_true(image, files)
        return
    for file in files:
        ds = pydicom.dcmread(file)
        ras = np.array([*(np.array(ds.ImagePositionPatient, float) * [-1, -1, 1]), 1.0])
        index = np.rint(np.linalg.solve(image.ijk_to_ras, ras))
        assert np.abs(image.ijk_to_ras @ index - ras).max() < 0.01


def test_one_head_in_three_codings(shared):
    """The three series are one; the one in runs is judged by pydicom above."""
    runs, *others = (
        read_image(shared / "robust_volumes/dicom" / name) for name in ("mr_rle", "mr_jpeg2000", "mr_jpegls")
    )
    for other in others:
        np.testing.assert_array_equal(other.array, runs.array)


def test_real_series_that_are_no_one_volume(shared):
    folder = shared / "robust_volumes" / "dicom"
    heads = [pydicom.dcmread(file) for file in sorted((folder / "ct_head_gantry_tilt").iterdir())]
    way = np.subtract(heads[-1].ImagePositionPatient, heads[0].ImagePositionPatient).astype(float)
    axes = np.array(heads[0].ImageOrientationPatient, float).reshape(2, 3)
    with pytest.raises(
        ImageError, match=f"sheared: its slices are shifted sideways, by {np.linalg.norm(axes @ way):.1f} mm"
    ):
        read_image(folder / "ct_head_gantry_tilt")
    with pytest.raises(ImageError, match="2 volumes in one series"):
        read_image(folder / "fmri_ge_4d")
    files = sorted((folder / "fmri_ge_4d").iterdir())
    for number, part in ((1, files[:4]), (2, files[4:])):
        assert_true(read_image(folder / "fmri_ge_4d", series=number), part)
    with pytest.raises(ImageError, match=r"liver_dicom_seg.dcm is a DICOM segmentation"):
        read_image(folder / "seg" / "liver_dicom_seg.dcm")
    known = json.loads((shared / "robust_volumes" / "manifest.json").read_text())
    listed = {entry["file"].split("/")[1] for entry in known if entry["file"].startswith("dicom/")}
    assert listed == {*REAL, "ct_head_gantry_tilt", "fmri_ge_4d", "seg"}
