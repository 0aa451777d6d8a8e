"""DICOM files of many frames: each frame at its own place and with its own scaling, or a refusal that says why."""

import numpy as np
import pydicom
import pytest
from dicom_writing import (
    AXIAL,
    OBLIQUE,
    SAGITTAL,
    assert_true,
    data_set,
    enhanced,
    item,
    noise,
    place,
    write,
    write_series,
)
from pydicom.sequence import Sequence

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image

UNSIGNED = noise().astype(np.uint16)
EVEN = 2.5 * np.arange(12)


def chosen(path, number):
    return read_image(path, series=number)


# --- enhanced CT, MR and PET ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "storage"), [("CT", "2.1"), ("MR", "4.1"), ("PT", "130"), ("MR", "4.4")])
@pytest.mark.parametrize("order", ["as they lie", "backwards", "shuffled"])
@pytest.mark.parametrize("axes", [AXIAL, OBLIQUE])
def test_frames_lie_where_they_say(tmp_path, modality, storage, order, axes):
    places = {"as they lie": EVEN, "backwards": EVEN[::-1], "shuffled": EVEN[np.arange(12) * 5 % 12]}[order]
    ds = enhanced(UNSIGNED, places, axes, modality=modality, storage=storage)
    ds.SpacingBetweenSlices = 7.0
    file = write(tmp_path / "a" / "x", ds)
    for path in (file, tmp_path / "a"):
        image = read_image(path)
        assert image.spacing == pytest.approx((0.8, 0.9, 2.5))
        assert not image.notices
        assert_true(image, [file])


def test_each_frame_has_its_own_scaling(tmp_path):
    slopes = [round(0.3 + 0.07 * k, 3) for k in range(12)]
    image = read_image(file := write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN[::-1], slopes=slopes)))
    assert image.array.dtype == np.float32
    assert_true(image, [file])


def test_large_slopes_do_not_wrap(tmp_path):
    pixels = np.full((3, 4, 5), 4000, np.uint16)
    image = read_image(file := write(tmp_path / "x.dcm", enhanced(pixels, EVEN[:3], slopes=[1, 40, 1])))
    assert image.array.max() == 160000
    assert_true(image, [file])


def test_what_all_frames_share_counts_for_each(tmp_path):
    ds = enhanced(UNSIGNED, EVEN)
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence = item(ImageOrientationPatient=list(AXIAL))
    shared.PixelValueTransformationSequence = item(RescaleSlope="2", RescaleIntercept="-1024", RescaleType="HU")
    for frame in ds.PerFrameFunctionalGroupsSequence:
        del frame.PlaneOrientationSequence
    image = read_image(file := write(tmp_path / "x.dcm", ds))
    assert image.array.min() == 2 * int(UNSIGNED.min()) - 1024
    assert image.array.dtype.kind == "i"
    assert_true(image, [file])


def test_real_world_values_are_not_the_voxels(tmp_path):
    def groups(frame, k):
        frame.RealWorldValueMappingSequence = item(
            RealWorldValueSlope=100.0, RealWorldValueIntercept=5.0, RealWorldValueFirstValueMapped=0
        )

    image = read_image(file := write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN, groups=groups)))
    assert image.array.max() == UNSIGNED.max()
    assert_true(image, [file])


def test_pieces_on_both_sides_of_a_gap_are_listed_and_each_can_be_chosen(tmp_path):
    places = [place + 20 * (k > 5) for k, place in enumerate(EVEN)]
    file = write(tmp_path / "x.dcm", enhanced(UNSIGNED, places))
    with pytest.raises(ImageError, match=r"beyond a gap of 22.5 mm after frame 6 of x.dcm, 6 images") as refusal:
        read_image(file)
    assert "--series" in refusal.value.remedy
    assert_true(chosen(file, 1), [file], range(6))
    assert_true(chosen(file, 2), [file], range(6, 12))


def test_stacks_that_the_file_names_are_volumes_of_their_own(tmp_path):
    def stacks(frame, k):
        frame.FrameContentSequence = item(StackID=f"{k // 6 + 1}", InStackPositionNumber=k % 6 + 1)

    file = write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN, groups=stacks))
    with pytest.raises(ImageError, match="Stack ID 2, 6 images"):
        read_image(file)
    assert_true(chosen(file, 1), [file], range(6))
    assert_true(chosen(file, 2), [file], range(6, 12))


def test_one_frame_beside_the_others_is_a_volume_of_its_own(tmp_path):
    ds = enhanced(UNSIGNED, EVEN)
    ds.PerFrameFunctionalGroupsSequence[11].PlanePositionSequence[0].ImagePositionPatient[0] = 4.0
    file = write(tmp_path / "x.dcm", ds)
    with pytest.raises(ImageError, match=r"2: .*, frame 12 of x.dcm that lies 9.00 mm beside the others, 1 image"):
        read_image(file)
    assert_true(chosen(file, 1), [file], range(11))


def test_a_file_of_many_frames_that_is_there_twice_counts_once(tmp_path):
    file = write(tmp_path / "a" / "x.dcm", enhanced(UNSIGNED, EVEN))
    (tmp_path / "a" / "y.dcm").write_bytes(file.read_bytes())
    image = read_image(tmp_path / "a")
    assert_true(image, [file])
    assert "1 of 2 files in a were not used: 1 there twice (y.dcm)" in image.notices[0]


def test_a_missing_frame_is_filled_and_told(tmp_path):
    places = [place + 2.5 * (k > 5) for k, place in enumerate(EVEN)]
    image = read_image(file := write(tmp_path / "x.dcm", enhanced(UNSIGNED, places)))
    assert image.shape[2] == 13
    assert_true(image, [file])
    assert "resampled to 13 slices 2.50 mm apart" in image.notices[0]


def times(frame, k):
    frame.FrameContentSequence = item(TemporalPositionIndex=k // 6 + 1)


def echoes(frame, k):
    frame.MREchoSequence = item(EffectiveEchoTime=[4.5, 9.0][k % 2])


def b_values(frame, k):
    frame.MRDiffusionSequence = item(DiffusionBValue=[0.0, 1000.0][k // 6])


def phases(frame, k):
    frame.CardiacSynchronizationSequence = item(NominalPercentageOfCardiacPhase=[0.0, 50.0][k // 6])


def kinds(frame, k):
    frame.MRImageFrameTypeSequence = item(FrameType=["ORIGINAL", "PRIMARY", "VOLUME", "MP"[k // 6]])


def dimensions(frame, k):
    frame.FrameContentSequence = item(DimensionIndexValues=[1, k % 6 + 1, k // 6 + 1])


def nothing(frame, k):
    return


@pytest.mark.parametrize(
    ("groups", "shown"),
    [
        (times, "Temporal Position Index 2"),
        (echoes, "Effective Echo Time 9"),
        (b_values, "Diffusion b-value 1000"),
        (phases, "Nominal Percentage of Cardiac Phase 50"),
        (kinds, "Frame Type ORIGINAL/PRIMARY/VOLUME/P"),
        (dimensions, "Dimension 3 index 2"),
        (nothing, "image 2 of 2 at each place"),
    ],
)
def test_two_volumes_in_one_file_are_listed_and_each_can_be_chosen(tmp_path, groups, shown):
    parts = [[k for k in range(12) if k // 6 == n] for n in (0, 1)]
    places = [2.5 * (k % 6) for k in range(12)]
    if groups is echoes:
        parts = [[k for k in range(12) if k % 2 == n] for n in (0, 1)]
        places = [2.5 * (k // 2) for k in range(12)]
    file = write(tmp_path / "a" / "x.dcm", enhanced(UNSIGNED, places, groups=groups))
    with pytest.raises(ImageError, match="2 volumes in one series") as refusal:
        read_image(file)
    assert f"2: MR series without a description, {shown}" in str(refusal.value)
    assert "--series" in refusal.value.remedy
    assert "folder of their own" not in refusal.value.remedy
    for path in (file, tmp_path / "a"):
        for number in (1, 2):
            image = chosen(path, number)
            assert image.shape == (20, 16, 6)
            assert_true(image, [file], parts[number - 1])
            assert "6 of another part of the series" in image.notices[0]


def test_stacks_of_two_directions_are_listed_and_each_can_be_chosen(tmp_path):
    axes = [AXIAL] * 6 + [SAGITTAL] * 6
    file = write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN, axes))
    with pytest.raises(
        ImageError, match=r"1: MR series without a description, axial, 6 images.*2: .*, sagittal, 6 images"
    ):
        read_image(file)
    assert_true(chosen(file, 1), [file], range(6))
    assert_true(chosen(file, 2), [file], range(6, 12))


def test_one_frame_of_another_direction_is_left_out_and_told(tmp_path):
    axes = [AXIAL] * 11 + [SAGITTAL]
    image = read_image(file := write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN, axes)))
    assert_true(image, [file], range(11))
    assert "Images of x.dcm that were not used: 1 of another size or direction" in image.notices[0]


def test_frames_of_one_place_over_time_are_no_volume(tmp_path):
    file = write(tmp_path / "x.dcm", enhanced(UNSIGNED, np.zeros(12), groups=times))
    with pytest.raises(ImageError, match="at the same place"):
        read_image(file)


def test_fewer_descriptions_than_frames_are_refused(tmp_path):
    ds = enhanced(UNSIGNED, EVEN)
    del ds.PerFrameFunctionalGroupsSequence[-1]
    with pytest.raises(ImageError, match=r"x.dcm has 12 frames \(NumberOfFrames \(0028,0008\)\) but describes 11"):
        read_image(write(tmp_path / "x.dcm", ds))


def test_one_volume_over_several_multi_frame_files(tmp_path):
    files = []
    for part in (1, 0):
        own = slice(6 * part, 6 * part + 6)
        ds = enhanced(UNSIGNED[own], EVEN[own])
        ds.InstanceNumber = part + 1
        files.append(write(tmp_path / "a" / f"{part}.dcm", ds))
    image = read_image(tmp_path / "a")
    assert image.shape == (20, 16, 12)
    assert_true(image, files)


def test_frames_that_are_cut_off_are_refused(tmp_path):
    file = write(tmp_path / "x.dcm", enhanced(UNSIGNED, EVEN))
    file.write_bytes(file.read_bytes()[:-3000])
    with pytest.raises(ImageError, match=r"x.dcm is damaged or cut off"):
        read_image(file)


# --- time is no space -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("modality", "storage"), [("US", "3.1"), ("XA", "12.1"), ("OT", "7.2"), ("RF", "12.2")])
def test_a_film_is_refused_and_each_frame_can_be_chosen(tmp_path, modality, storage):
    pixels = noise((7, 9, 11)).astype(np.uint8)
    file = write(tmp_path / "film.dcm", data_set(pixels, modality, storage, FrameTime=33.3))
    with pytest.raises(ImageError, match="7 pictures that are no slices of one volume") as refusal:
        read_image(file)
    assert "1 to 7: " in str(refusal.value)
    assert "single frames of film.dcm, 1 image of 11 x 9" in str(refusal.value)
    for number in (1, 7):
        image = chosen(file, number)
        assert image.shape == (11, 9, 1)
        np.testing.assert_array_equal(image.array[0, :, :, 0], pixels[number - 1].T)


def test_a_colour_film_gives_a_picture_of_three_channels(tmp_path):
    pixels = noise((4, 9, 11, 3)).astype(np.uint8)
    file = write(tmp_path / "film.dcm", data_set(pixels, "US", "3.1"))
    image = chosen(file, "3")
    np.testing.assert_array_equal(image.array[..., 0], pixels[2].transpose(2, 1, 0))


def test_many_frames_with_the_place_of_one_are_no_volume(tmp_path):
    ds = place(data_set(UNSIGNED, "MR"), (0, 0, 0))
    with pytest.raises(ImageError, match="no slices of one volume"):
        read_image(write(tmp_path / "x.dcm", ds))


@pytest.mark.parametrize("regions", [1, 2])
def test_an_ultrasound_region_tells_the_pixel_size(tmp_path, regions):
    ds = data_set(noise((9, 11)).astype(np.uint8), "US")
    facts = {"RegionSpatialFormat": 1, "PhysicalUnitsXDirection": 3, "PhysicalUnitsYDirection": 3}
    ds.SequenceOfUltrasoundRegions = Sequence(
        [item(**facts, PhysicalDeltaX=0.03, PhysicalDeltaY=-0.04)[0] for _ in range(regions)]
    )
    image = read_image(write(tmp_path / "x.dcm", ds))
    assert image.spacing[:2] == pytest.approx((0.3, 0.4))
    assert image.spacing_known
    assert "ultrasound region" in image.notices[0]


@pytest.mark.parametrize("change", [{"PhysicalUnitsXDirection": 4}, {"PhysicalDeltaX": 0.05}, None])
def test_without_one_size_pixels_are_pixels(tmp_path, change):
    ds = data_set(noise((9, 11)).astype(np.uint8), "US")
    facts = {
        "RegionSpatialFormat": 1,
        "PhysicalUnitsXDirection": 3,
        "PhysicalUnitsYDirection": 3,
        "PhysicalDeltaX": 0.03,
        "PhysicalDeltaY": 0.03,
    }
    if change is not None:
        ds.SequenceOfUltrasoundRegions = Sequence([item(**facts)[0], item(**{**facts, **change})[0]])
    image = read_image(write(tmp_path / "x.dcm", ds))
    assert image.spacing[:2] == (1, 1)
    assert not image.spacing_known
    assert "tells no size of its pixels" in image.notices[0]


def test_the_size_at_the_detector_is_told(tmp_path):
    ds = data_set(noise((9, 11)), "CR", ImagerPixelSpacing=[0.2, 0.1])
    image = read_image(write(tmp_path / "x.dcm", ds))
    assert image.spacing[:2] == pytest.approx((0.1, 0.2))
    assert "at the detector" in image.notices[0]


def test_pixels_that_are_not_square_are_told(tmp_path):
    image = read_image(write(tmp_path / "x.dcm", data_set(noise((9, 11)), "OT", PixelAspectRatio=[2, 1])))
    assert image.spacing[0] / image.spacing[1] == pytest.approx(0.5)
    assert not image.spacing_known


def test_an_ultrasound_volume_lies_in_its_own_frame(tmp_path):
    ds = enhanced(UNSIGNED, EVEN, modality="US", storage="6.2")
    for frame in ds.PerFrameFunctionalGroupsSequence:
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        frame.PlanePositionVolumeSequence = item(ImagePositionVolume=position)
        orientation = frame.PlaneOrientationSequence[0].ImageOrientationPatient
        frame.PlaneOrientationVolumeSequence = item(ImageOrientationVolume=orientation)
        del frame.PlanePositionSequence, frame.PlaneOrientationSequence
    image = read_image(write(tmp_path / "x.dcm", ds))
    np.testing.assert_array_equal(image.array[0], UNSIGNED.T)
    assert image.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert "not of the patient" in image.notices[0]


# --- dose, nuclear medicine, maps -----------------------------------------------------------------------------------


def dose(offsets, position=(-10, 20, 30), axes=AXIAL, pixels=UNSIGNED):
    ds = place(data_set(pixels, "RTDOSE", "481.2"), position, axes)
    ds.DoseGridScaling, ds.DoseUnits = "0.0025", "GY"
    ds.GridFrameOffsetVector = [float(offset) for offset in offsets]
    return ds


@pytest.mark.parametrize("axes", [AXIAL, (1, 0, 0, 0, -1, 0)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_dose_grid_has_its_scaling_and_its_places(tmp_path, axes, sign):
    image = read_image(write(tmp_path / "x.dcm", dose(sign * EVEN, axes=axes)))
    normal = np.cross(axes[:3], axes[3:])
    for k in (0, 4, 11):
        lps = np.array([-10, 20, 30]) + sign * EVEN[k] * normal
        index = np.linalg.solve(image.ijk_to_ras, [*(lps * [-1, -1, 1]), 1])[:3]
        np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
        slice_ = image.array[0, :, :, int(np.rint(index[2]))]
        np.testing.assert_allclose(slice_, UNSIGNED[k].T * 0.0025, rtol=1e-6)


def test_a_dose_has_no_intercept_and_no_other_slope(tmp_path):
    """Its values are the stored ones times DoseGridScaling (C.8.8.3.4.4), whatever else a program left there."""
    ds = dose(EVEN)
    ds.RescaleSlope, ds.RescaleIntercept = "2", "7"
    image = read_image(write(tmp_path / "x.dcm", ds))
    np.testing.assert_allclose(image.array[0], UNSIGNED.T * 0.0025, rtol=1e-6)


def test_a_dose_grid_may_give_coordinates(tmp_path):
    image = read_image(write(tmp_path / "x.dcm", dose(30 + EVEN)))
    np.testing.assert_allclose(image.ijk_to_ras[:3, 3], [10, -20, 30])
    np.testing.assert_allclose(image.ijk_to_ras[:3, 2], [0, 0, 2.5])


def test_uneven_and_unclear_places_of_a_dose_grid(tmp_path):
    image = read_image(write(tmp_path / "x.dcm", dose([0, 2.5, 7.5, 10, *(12.5 + EVEN[:8])])))
    assert "resampled" in image.notices[0]
    np.testing.assert_allclose(image.array[0, :, :, 3], UNSIGNED[2].T * 0.0025, rtol=1e-6)
    with pytest.raises(ImageError, match=r"GridFrameOffsetVector \(3004,000c\) names 11 places"):
        read_image(write(tmp_path / "y.dcm", dose(EVEN[:11])))
    with pytest.raises(ImageError, match=r"begins neither with 0 nor"):
        read_image(write(tmp_path / "z.dcm", dose(7 + EVEN)))


@pytest.mark.parametrize("distance", [3.0, -3.0])
def test_a_nuclear_tomogram_stacks_by_the_sign_of_its_distance(tmp_path, distance):
    ds = data_set(UNSIGNED, "NM", "20", ImageType=["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"])
    ds.PixelSpacing, ds.SpacingBetweenSlices, ds.SliceVector = [4.0, 4.0], distance, list(range(1, 13))
    ds.DetectorInformationSequence = item(ImagePositionPatient=[1.0, 2.0, 3.0], ImageOrientationPatient=list(AXIAL))
    image = read_image(write(tmp_path / "x.dcm", ds))
    for k in (0, 5, 11):
        index = np.linalg.solve(image.ijk_to_ras, [-1, -2, 3 + k * distance, 1])[:3]
        np.testing.assert_array_equal(image.array[0, :, :, int(np.rint(index[2]))], UNSIGNED[k].T)
    assert image.spacing == pytest.approx((4, 4, 3))


def test_a_dynamic_nuclear_image_is_no_volume(tmp_path):
    ds = data_set(UNSIGNED, "NM", "20", ImageType=["ORIGINAL", "PRIMARY", "DYNAMIC", "EMISSION"])
    with pytest.raises(ImageError, match="no slices of one volume"):
        read_image(write(tmp_path / "x.dcm", ds))


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", np.float32), ("DoubleFloatPixelData", np.float64)])
def test_a_parametric_map_has_float_pixels(tmp_path, keyword, kind):
    values = np.random.default_rng(0).normal(size=(4, 16, 20)).astype(kind)
    ds = enhanced(UNSIGNED[:4], EVEN[:4][::-1], storage="30")
    del ds.PixelData, ds.BitsStored, ds.HighBit, ds.PixelRepresentation
    ds.BitsAllocated = 8 * values.dtype.itemsize
    setattr(ds, keyword, values.tobytes())
    image = read_image(write(tmp_path / "x.dcm", ds))
    np.testing.assert_allclose(image.array[0], values[::-1].T, rtol=1e-6)
    assert image.spacing == pytest.approx((0.8, 0.9, 2.5))


def test_pydicoms_own_dose_file(tmp_path):
    path = pydicom.data.get_testdata_file("rtdose.dcm")
    ds = pydicom.dcmread(path)
    image = read_image(path)
    np.testing.assert_allclose(image.array[0].T, ds.pixel_array * ds.DoseGridScaling, rtol=1e-6)
    step = ds.GridFrameOffsetVector[1] - ds.GridFrameOffsetVector[0]
    assert image.spacing == pytest.approx((ds.PixelSpacing[1], ds.PixelSpacing[0], step))


def test_a_film_beside_a_series_is_a_choice(tmp_path):
    files = write_series(tmp_path / "a", noise(), SeriesInstanceUID="1.2.3.9", SeriesDescription="T1")
    write(tmp_path / "a" / "film.dcm", data_set(noise((50, 9, 11)).astype(np.uint8), "US", "3.1"))
    with pytest.raises(ImageError, match="51 DICOM volumes"):
        read_image(tmp_path / "a")
    assert_true(read_image(tmp_path / "a", series="T1"), files)
