"""DICOM structure sets of series of all kinds, filled by plastimatch and by matplotlib's polygons."""

import numpy as np
import pydicom
import pytest
from dicom_writing import AXIAL, OBLIQUE, noise, planes_of, write_series
from matplotlib.path import Path as Polygon

from judges import dice, plastimatch_masks
from prosma import read_image, write_rtstruct
from prosma.cli import main
from prosma.inference.segmenter import Segmenter
from prosma.outputs.contours import outlines
from series_kinds import CHOSEN, NEGATIVE, SERIES
from tiny_model import make_tiny_package

LEAST_DICE = 0.999


def segment(*arguments) -> int:
    return main(["segment", *map(str, arguments), "--device", "cpu"])


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A model with a label for each of the shapes below."""
    return make_tiny_package(tmp_path_factory.mktemp("models") / "four", labels=4)


def shapes(image) -> dict[str, np.ndarray]:
    """A ball, a ring, a slab one voxel thick, a single voxel: disjoint masks (I, J, K)."""
    i, j, k = np.indices(image.shape)
    x, y, z = (index * step for index, step in zip((i - 22, j - 20, k - 12), image.spacing, strict=True))
    distance = np.hypot((i - 54) * image.spacing[0], (j - 40) * image.spacing[1])
    return {
        "structure 1": np.sqrt(x**2 + y**2 + z**2) < 12,
        "structure 2": (distance < 11) & (distance > 5) & (k > 5) & (k < 15),
        "structure 3": (j == 52) & (i > 3) & (i < 36) & (k > 3) & (k < 9),
        "structure 4": (j == 56) & (i == 5) & (k == 10),
    }


@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE, NEGATIVE], ids=["axial", "oblique", "negative"])
@pytest.mark.parametrize("spacing", [(0.8, 0.9, 2.5), (0.8, 0.8, 2.5), (1.4, 0.6, 3.0)], ids=str)
def test_plastimatch_finds_balls_holes_and_thin_parts(axes, spacing, four, tmp_path):
    series = tmp_path / "series"
    facts = {"PatientPosition": "HFS", "RescaleSlope": 1, "RescaleIntercept": 0, "FrameOfReferenceUID": "1.2.9"}
    write_series(series, noise((24, 60, 70)).astype(np.int16), spacing, axes, modality="CT", **facts)
    image = read_image(series)
    labels, masks = np.zeros(image.shape, np.uint8), shapes(image)
    for value, mask in enumerate(masks.values(), start=1):
        labels[mask] = value
    write_rtstruct(tmp_path / "r.dcm", labels, series, four)
    found = plastimatch_masks(tmp_path / "r.dcm", tmp_path / "masks", series, image)
    assert set(found) == set(masks)
    for name, mask in masks.items():
        assert dice(found[name], mask) >= LEAST_DICE, name


@pytest.mark.parametrize("kind", SERIES)
def test_contours_hold_the_pixels_that_were_found(kind, tiny, flat, tmp_path):
    package = flat if kind == "one slice" else tiny
    folder, output = tmp_path / "series", tmp_path / "r.rtstruct.dcm"
    SERIES[kind](folder)
    choice = CHOSEN.get(kind, [])
    assert segment(folder, "-m", package.folder, "-o", output, *choice) == 0
    image = read_image(folder, choice[1] if choice else None)
    labels = Segmenter(package, "cpu").segment(image).labels
    ds = pydicom.dcmread(output)
    for number, roi in enumerate(ds.ROIContourSequence, start=1):
        assert dice(filled(roi, image), labels == number) == 1
    assert_images_named(ds, folder)


def filled(roi, image) -> np.ndarray:
    """The voxels (I, J, K) whose centres lie within an odd number of a structure's contours, by the patient's coordinates."""
    mask = np.zeros(image.shape, bool)
    inverse = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.ijk_to_ras)
    centres = np.indices(image.shape[:2]).reshape(2, -1).T
    for contour in roi.get("ContourSequence", []):
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        assert contour.NumberOfContourPoints == len(points)
        index = points @ inverse[:3, :3].T + inverse[:3, 3]
        k = round(float(index[0, 2]))
        assert np.abs(index[:, 2] - k).max() < 1e-3
        inside = Polygon(index[:, :2], closed=False).contains_points(centres)
        mask[..., k] ^= inside.reshape(image.shape[:2])
    return mask


def assert_images_named(ds, folder):
    """Each contour lies in the plane of the image that it names; the series' images are all named."""
    places, uids = {}, set()
    for file in folder.iterdir():
        source = pydicom.dcmread(file)
        uids.add(source.SOPInstanceUID)
        for number, (_, position, orientation, _) in enumerate(planes_of(file)):
            frame = number + 1 if "NumberOfFrames" in source else None
            places[source.SOPInstanceUID, frame] = position, orientation
    named = 0
    for roi in ds.ROIContourSequence:
        for contour in roi.get("ContourSequence", []):
            for reference in contour.get("ContourImageSequence", []):
                key = reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber")
                position, orientation = places[key]
                normal = np.cross(orientation[:3], orientation[3:])
                points = np.array(contour.ContourData, float).reshape(-1, 3) - np.array(position, float)
                assert np.abs(points @ normal).max() < 1e-3
                named += 1
    assert named
    (frame_of_reference,) = ds.ReferencedFrameOfReferenceSequence
    (series,) = frame_of_reference.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert {each.ReferencedSOPInstanceUID for each in series.ContourImageSequence} == uids
    assert frame_of_reference.FrameOfReferenceUID == ds.FrameOfReferenceUID


def test_names_colours_terms_and_patient_stand_in_it(tiny, tmp_path):
    write_series(tmp_path / "series", noise(), PatientSex="F", StudyDate="20260102", FrameOfReferenceUID="1.2.9")
    terms = {"category": ["SCT", "123037004", "Anatomical Structure"], "type": ["SCT", "10200004", "Liver"]}
    described = [
        {"value": 7, "name": "liver", "color": [221, 130, 101], "terminology": terms},
        {"value": 9, "name": "nothing", "color": [1, 2, 3]},
    ]
    labels = np.zeros((20, 16, 12), np.uint8)
    labels[3:9, 2:8, 4] = 7
    write_rtstruct(tmp_path / "r.dcm", labels, tmp_path / "series", tiny, described)
    ds = pydicom.dcmread(tmp_path / "r.dcm")
    assert (ds.Modality, ds.PatientID, ds.PatientSex, ds.StudyDate) == ("RTSTRUCT", "SECRET-77", "F", "20260102")
    assert (ds.FrameOfReferenceUID, ds.StudyInstanceUID, ds.ApprovalStatus) == ("1.2.9", "1.2.3", "UNAPPROVED")
    assert [roi.ROIName for roi in ds.StructureSetROISequence] == ["liver", "nothing"]
    assert [roi.ROIDisplayColor for roi in ds.ROIContourSequence] == [[221, 130, 101], [1, 2, 3]]
    assert "PositionReferenceIndicator" in ds  # has to be there, if only empty
    (code,) = ds.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence
    assert (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning) == ("SCT", "10200004", "Liver")
    (contour,) = ds.ROIContourSequence[0].ContourSequence
    assert (contour.ContourGeometricType, contour.NumberOfContourPoints) == ("CLOSED_PLANAR", 4)
    assert "ContourSequence" not in ds.ROIContourSequence[1]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_any_mask_is_what_its_outlines_hold(seed, share):
    """Noise: holes in holes, parts that touch at corners, the border of the image."""
    mask = np.random.default_rng(seed).random((13, 9)) < share
    centres = np.indices(mask.shape).reshape(2, -1).T
    polygons = outlines(mask)
    seen = [Polygon(polygon, closed=False).contains_points(centres).reshape(mask.shape) for polygon in polygons]
    assert np.array_equal(np.sum(seen, axis=0), mask)  # each pixel in one polygon, so that any rule of filling does

    import SimpleITK as sitk

    parts = sitk.ConnectedComponentImageFilter()
    parts.FullyConnectedOff()
    parts.Execute(sitk.GetImageFromArray(mask.astype(np.uint8)))
    assert len(polygons) == parts.GetObjectCount()


def test_an_empty_mask_has_no_outline():
    assert outlines(np.zeros((4, 5), bool)) == []
