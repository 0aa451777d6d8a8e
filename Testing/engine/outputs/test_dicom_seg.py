"""DICOM segmentations of series of all kinds, read back by dcmqi (and Slicer's reader), by highdicom's and tag by tag."""

import json
import subprocess
import sys

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_writing import noise, planes_of, write_series

from judges import dcmqi_labels, dice, on_grid, slicer_labels
from prosma import read_image, write_dicom_seg
from prosma.cli import main
from prosma.image.geometry import ImageError
from prosma.inference.segmenter import Segmenter
from prosma.outputs.source import read_source
from remedies import tries
from series_kinds import CHOSEN, SERIES, two_times
from tiny_model import make_tiny_package


def segment(*arguments) -> int:
    try:
        return main(["segment", *map(str, arguments), "--device", "cpu"])
    except SystemExit as end:
        return end.code


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
@pytest.mark.parametrize("kind", SERIES)
def test_other_readers_find_each_segment_where_it_was_found(kind, seg_type, tiny, flat, tmp_path):
    package = flat if kind == "one slice" else tiny
    folder, output = tmp_path / "series", tmp_path / "out" / "result.dcm"
    SERIES[kind](folder)
    choice = CHOSEN.get(kind, [])
    assert segment(folder, "-m", package.folder, "-o", output, "--seg-type", seg_type, *choice) == 0
    image = read_image(folder, choice[1] if choice else None)
    labels = Segmenter(package, "cpu").segment(image).labels
    assert {0, 1} <= set(np.unique(labels).tolist())

    seen = {"dcmqi": dcmqi_labels(output, tmp_path / "dcmqi", image), "highdicom": highdicom_labels(output, image)}
    seen["Slicer's reader"] = slicer_labels(sorted((tmp_path / "dcmqi").glob("*.nrrd")), image)
    for name, found in seen.items():
        for value in (1, 2):
            assert dice(found == value, labels == value) >= 0.999, (name, value)
    assert_references(output, folder)


def highdicom_labels(path, image):
    import SimpleITK as sitk

    volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    picture = sitk.GetImageFromArray(volume.array.astype(np.uint16))
    matrix = volume.affine[:3, [2, 1, 0]]  # axes of highdicom's volumes: slices, rows, columns
    spacing = np.linalg.norm(matrix, axis=0)
    picture.SetSpacing(spacing.tolist())
    picture.SetDirection((matrix / spacing).ravel().tolist())
    picture.SetOrigin(volume.affine[:3, 3].tolist())
    return on_grid(picture, image)


def assert_references(path, folder):
    """Each frame names the image at whose place it lies, and the object all images of the series."""
    ds = pydicom.dcmread(path)
    places, uids = {}, set()
    for file in folder.iterdir():
        uids.add(pydicom.dcmread(file).SOPInstanceUID)
        for number, (_, position, orientation, spacing) in enumerate(planes_of(file)):
            source = pydicom.dcmread(file)
            frame = number + 1 if "NumberOfFrames" in source else None
            places[source.SOPInstanceUID, frame] = source.SOPClassUID, position, orientation, spacing
    shared = ds.SharedFunctionalGroupsSequence[0]
    named = 0
    for frame in ds.PerFrameFunctionalGroupsSequence:
        for derivation in frame.DerivationImageSequence:
            (reference,) = derivation.SourceImageSequence
            assert reference.SpatialLocationsPreserved == "YES"
            key = reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")
            kind, position, orientation, spacing = places[key]
            assert reference.ReferencedSOPClassUID == kind
            own = frame.PlanePositionSequence[0].ImagePositionPatient
            np.testing.assert_allclose(own, position, atol=1e-4)
            np.testing.assert_allclose(
                shared.PlaneOrientationSequence[0].ImageOrientationPatient, orientation, atol=1e-6
            )
            np.testing.assert_allclose(shared.PixelMeasuresSequence[0].PixelSpacing, spacing)
            named += 1
    assert named
    (series,) = ds.ReferencedSeriesSequence
    assert {each.ReferencedSOPInstanceUID for each in series.ReferencedInstanceSequence} == uids
    assert {each.ReferencedSOPInstanceUID for each in ds.SourceImageSequence} == uids


def test_the_frame_of_the_right_time_is_named(tiny, tmp_path):
    two_times(tmp_path / "series")
    assert segment(tmp_path / "series", "-m", tiny.folder, "-o", tmp_path / "r.dcm", "--series", "2") == 0
    ds = pydicom.dcmread(tmp_path / "r.dcm")
    numbers = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        for frame in ds.PerFrameFunctionalGroupsSequence
    }
    assert numbers == set(range(2, 21, 2))


# --- what it says -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """A model with terms, and with a name that no header can hold."""
    folder = tmp_path_factory.mktemp("models") / "coded"
    package = make_tiny_package(folder, spacing=None, patch_size=[16, 16, 16])
    anatomy, liver = ["SCT", "123037004", "Anatomical Structure"], ["SCT", "10200004", "Liver"]
    terms = {"category": anatomy, "type": liver, "modifier": ["SCT", "7771000", "Left"]}
    model = json.loads((folder / "model.json").read_text())
    model["labels"] = [
        {"value": 1, "name": "left liver", "color": [221, 130, 101], "terminology": terms},
        {"value": 2, "name": "B\\A" * 30, "color": [10, 20, 30]},
    ]
    (folder / "model.json").write_text(json.dumps(model))
    return type(package).open(folder)


def code(sequence) -> tuple:
    (one,) = sequence
    return one.CodingSchemeDesignator, one.CodeValue, one.CodeMeaning


def test_codes_colours_model_and_patient_stand_in_it(coded, tmp_path):
    facts = {"StudyDate": "20260102", "StudyID": "7", "SeriesNumber": 4, "FrameOfReferenceUID": "1.2.9"}
    write_series(tmp_path / "series", noise(), PatientBirthDate="19500101", PatientSex="F", **facts)
    assert segment(tmp_path / "series", "-m", coded.folder, "-o", tmp_path / "r.dcm", "--overlap", "0.3") == 0
    ds = pydicom.dcmread(tmp_path / "r.dcm")
    assert (ds.Modality, ds.SegmentationType, ds.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    first, second = ds.SegmentSequence
    kind = first.SegmentedPropertyTypeCodeSequence
    assert code(first.SegmentedPropertyCategoryCodeSequence) == ("SCT", "123037004", "Anatomical Structure")
    assert code(kind) == ("SCT", "10200004", "Liver")
    assert code(kind[0].SegmentedPropertyTypeModifierCodeSequence) == ("SCT", "7771000", "Left")
    assert code(second.SegmentedPropertyTypeCodeSequence) == ("SCT", "85756007", "Tissue")
    assert first.SegmentLabel == "left liver"
    assert second.SegmentLabel == ("B/A" * 30)[:64]
    colour = highdicom.color.CIELabColor.from_dicom_value(first.RecommendedDisplayCIELabValue).to_rgb()
    assert np.abs(np.subtract(colour, [221, 130, 101])).max() <= 1

    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("ProSMA tiny", "1.0.0")
    assert code(algorithm.AlgorithmFamilyCodeSequence) == ("DCM", "123110", "Artificial Intelligence")
    assert f"weights_sha256={coded.sha256}" in algorithm.AlgorithmParameters
    assert "overlap=0.3" in algorithm.AlgorithmParameters
    assert first.SegmentAlgorithmType == "AUTOMATIC"
    assert ds.DeviceSerialNumber == coded.sha256
    assert ds.SoftwareVersions[1] == "tiny 1.0.0"
    assert ds.SeriesNumber == 1004
    for keyword, value in (*facts.items(), ("PatientID", "SECRET-77"), ("PatientBirthDate", "19500101")):
        if keyword != "SeriesNumber":
            assert ds[keyword].value == value, keyword
    assert ds.StudyInstanceUID == "1.2.3"
    assert ds.SeriesInstanceUID != "1.2.3.4"


def test_the_same_result_has_the_same_uid_and_another_one_another(tiny, tmp_path):
    write_series(tmp_path / "series", noise())
    labels = np.zeros((20, 16, 12), np.uint8)
    labels[4:9, 3:6, 2:5] = 1

    def written(labels, **options):
        write_dicom_seg(tmp_path / "r.dcm", labels, tmp_path / "series", tiny, **options)
        ds = pydicom.dcmread(tmp_path / "r.dcm")
        return ds.SOPInstanceUID, ds.SeriesInstanceUID

    first = written(labels)
    assert written(labels) == first
    other = labels.copy()
    other[0, 0, 0] = 2
    different = [first, written(other), written(labels, seg_type="labelmap"), written(labels, options={"mirror": True})]
    assert len({uid for pair in different for uid in pair}) == 8


def test_all_channels_are_named(tmp_path):
    package = make_tiny_package(tmp_path / "model", channels=2, spacing=None, patch_size=[16, 16, 16])
    for number, study in ((1, "1.2.3"), (2, "1.2.3"), (3, "1.2.77")):
        uids = {"SeriesInstanceUID": f"1.2.3.{number}", "StudyInstanceUID": study}
        write_series(tmp_path / f"s{number}", noise(seed=number), **uids)
    for second, studies in (("s2", []), ("s3", ["1.2.77"])):
        output = tmp_path / f"{second}.dcm"
        assert segment(tmp_path / "s1", tmp_path / second, "-m", package.folder, "-o", output) == 0
        ds = pydicom.dcmread(output)
        own = [series.SeriesInstanceUID for series in ds.ReferencedSeriesSequence]
        assert own == (["1.2.3.1"] if studies else ["1.2.3.1", "1.2.3.2"])
        others = ds.get("StudiesContainingOtherReferencedInstancesSequence", [])
        assert [study.StudyInstanceUID for study in others] == studies
        assert len(ds.SourceImageSequence) == 24


def test_headers_that_break_the_rules_are_taken_over_as_far_as_they_go(tiny, tmp_path):
    def edit(ds, k):
        for keyword in ("PatientName", "PatientID"):
            del ds[keyword]
        with pydicom.config.disable_value_validation():
            ds.PatientBirthDate, ds.StudyTime, ds.PatientSex = "unknown", "noon", "male"
            ds.InstitutionName, ds.SpecificCharacterSet = "Höpital", "ISO_IR 100"

    write_series(tmp_path / "series", noise(), edit=edit)
    assert segment(tmp_path / "series", "-m", tiny.folder, "-o", tmp_path / "r.dcm") == 0
    ds = pydicom.dcmread(tmp_path / "r.dcm")
    assert ds.FrameOfReferenceUID
    assert not any((ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.StudyTime, ds.PatientSex))
    image = read_image(tmp_path / "series")
    labels = Segmenter(tiny, "cpu").segment(image).labels
    np.testing.assert_array_equal(dcmqi_labels(tmp_path / "r.dcm", tmp_path / "dcmqi", image), labels)


@pytest.mark.parametrize("seg_type", ["binary", "labelmap"])
def test_nothing_found_is_a_segmentation_too(seg_type, tiny, tmp_path):
    write_series(tmp_path / "series", noise())
    labels = np.zeros((20, 16, 12), np.uint8)
    write_dicom_seg(tmp_path / "r.dcm", labels, tmp_path / "series", tiny, seg_type=seg_type)
    ds = pydicom.dcmread(tmp_path / "r.dcm")
    assert not ds.pixel_array.any()
    assert [each.SegmentLabel for each in ds.SegmentSequence][-2:] == ["structure 1", "structure 2"]


# --- what is refused, and what is protected ---------------------------------------------------------------------------


def test_without_highdicom_one_sentence_says_what_to_do(tiny, tmp_path, capsys, monkeypatch):
    write_series(tmp_path / "series", noise())
    monkeypatch.setitem(sys.modules, "highdicom", None)
    assert segment(tmp_path / "series", "-m", tiny.folder, "-o", tmp_path / "r.dcm") == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert 'python -m pip install "highdicom>=0.28"' in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["series"]
    assert segment(tmp_path / "series", "-m", tiny.folder, "-o", tmp_path / "r.seg.nrrd") == 0


def test_the_package_that_the_sentence_names_is_the_extra(tmp_path):
    """The version in the remedy is that of the installable extra, and pip takes it for met here."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "highdicom>=0.28"]
    assert subprocess.run(command, check=False, capture_output=True, timeout=300).returncode == 0


def test_only_a_dicom_series_with_places_has_dicom_results(tiny, tmp_path, capsys):
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(noise().astype(np.int16)), str(tmp_path / "scan.nrrd"))
    assert segment(tmp_path / "scan.nrrd", "-m", tiny.folder, "-o", tmp_path / "r.dcm") == 1
    assert "scan.nrrd is none. Write the result as .seg.nrrd or .nii.gz." in capsys.readouterr().err

    def without_place(ds, k):
        del ds.ImagePositionPatient
        ds.SpacingBetweenSlices = 2.5

    write_series(tmp_path / "lost", noise(), edit=without_place)
    assert segment(tmp_path / "lost", "-m", tiny.folder, "-o", tmp_path / "r.dcm") == 1
    assert "tell no places" in capsys.readouterr().err
    assert not (tmp_path / "r.dcm").exists()
    assert segment(tmp_path / "lost", "-m", tiny.folder, "-o", tmp_path / "r.seg.nrrd") == 0
    capsys.readouterr()
    assert segment(tmp_path / "lost", "-m", tiny.folder, "-o", tmp_path / "r.nrrd", "--seg-type", "labelmap") == 1
    assert "--format .dcm" in capsys.readouterr().err


def test_a_result_that_somebody_changed_is_left_alone(tiny, tmp_path, capsys):
    write_series(tmp_path / "series", noise())
    output = tmp_path / "r.dcm"
    arguments = (tmp_path / "series", "-m", tiny.folder, "-o", output)
    assert segment(*arguments) == 0
    first = output.read_bytes()
    assert segment(*arguments) == 0
    assert "was there already" in capsys.readouterr().out
    assert output.read_bytes() == first
    assert segment(*arguments, "--seg-type", "labelmap") == 0  # another kind of file takes its place
    assert pydicom.dcmread(output).SegmentationType == "LABELMAP"

    changed = pydicom.dcmread(output)
    changed.ContentDescription = "corrected"
    changed.save_as(output)
    kept = output.read_bytes()
    assert segment(*arguments) == 1
    assert "was changed after ProSMA wrote it" in capsys.readouterr().err
    assert output.read_bytes() == kept


@tries("batch/run_case.py: Say --again to make it once more")
def test_a_result_without_measures_gets_them_by_the_remedy(tiny, tmp_path, capsys):
    write_series(tmp_path / "series", noise())
    arguments = (tmp_path / "series", "-m", tiny.folder, "-o", tmp_path / "r.dcm")
    assert segment(*arguments) == 0
    assert segment(*arguments, "--statistics") == 1
    assert "--again" in capsys.readouterr().err
    assert segment(*arguments, "--statistics", "--again") == 0
    assert segment(*arguments, "--statistics") == 0
    assert "was there already" in capsys.readouterr().out


@pytest.mark.slow
def test_a_batch_of_series_gives_a_segmentation_each(tiny, tmp_path):
    for number in (1, 2):
        uids = {"SeriesInstanceUID": f"1.2.3.{number}", "SeriesDescription": f"T{number}"}
        write_series(tmp_path / "study" / f"s{number}", noise(seed=number), **uids)
    out = tmp_path / "out"
    assert segment(tmp_path / "study", "-m", tiny.folder, "-o", out, "--format", ".dcm", "--workers", "2") == 0
    found = {path.name: pydicom.dcmread(path) for path in out.glob("*.dcm")}
    assert sorted(found) == ["s1.dcm", "s2.dcm"]
    assert found["s2.dcm"].ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.2"


def test_an_error_at_the_end_leaves_the_old_file(tiny, tmp_path):
    write_series(tmp_path / "series", noise())
    labels = np.zeros((20, 16, 12), np.uint8)
    (tmp_path / "r.dcm").write_bytes(b"old")

    def fail(whole):
        assert pydicom.dcmread(whole).Modality == "SEG"
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        write_dicom_seg(tmp_path / "r.dcm", labels, tmp_path / "series", tiny, before_it_moves=fail)
    assert (tmp_path / "r.dcm").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.dcm", "series"]


def test_labels_that_do_not_belong_are_refused(tiny, tmp_path):
    write_series(tmp_path / "series", noise())
    source = read_source(tmp_path / "series")
    with pytest.raises(ImageError, match="20 x 16 x 11 voxels, its series 20 x 16 x 12"):
        write_dicom_seg(tmp_path / "r.dcm", np.zeros((20, 16, 11), np.uint8), source, tiny)
    with pytest.raises(ImageError, match="holds 3, which no label"):
        write_dicom_seg(tmp_path / "r.dcm", np.full((20, 16, 12), 3, np.uint8), source, tiny)
    assert not (tmp_path / "r.dcm").exists()
