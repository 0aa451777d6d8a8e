"""DICOM series of single images: every slice at its own place, or a refusal that names the file, or a notice."""

import numpy as np
import pytest
from dicom_writing import AXIAL, OBLIQUE, SAGITTAL, assert_true, data_set, noise, place, write, write_series
from pydicom.uid import generate_uid

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image


@pytest.mark.parametrize("axes", [AXIAL, SAGITTAL, OBLIQUE])
@pytest.mark.parametrize("step", [2.5, -2.5])
def test_every_voxel_is_at_its_place(tmp_path, axes, step):
    def wrong_distance(ds, k):
        ds.SpacingBetweenSlices, ds.SliceThickness = -7.0, 4.0  # positions alone count

    files = write_series(tmp_path / "a", noise(), (0.8, 0.9, step), axes, edit=wrong_distance)
    image = read_image(tmp_path / "a")
    assert image.array.shape == (1, 20, 16, 12)
    assert image.spacing == pytest.approx((0.8, 0.9, 2.5))
    assert not image.notices
    assert_true(image, files)


def test_names_and_numbers_of_files_do_not_matter(tmp_path):
    files = write_series(tmp_path / "a", noise(), edit=lambda ds, k: setattr(ds, "InstanceNumber", (k * 7) % 12))
    renamed = [file.rename(file.parent / f"{(k * 5) % 12}") for k, file in enumerate(files)]
    image = read_image(tmp_path / "a")
    assert not image.notices
    assert_true(image, renamed)


# --- images that are no slices of the volume ------------------------------------------------------------------------


@pytest.mark.parametrize("number", [37.3, 80.0, 5.0])
def test_a_localizer_in_the_series_is_left_out_and_told(tmp_path, number):
    files = write_series(tmp_path / "a", noise((30, 16, 16)))
    write_series(tmp_path / "a", noise((1, 16, 16), 1), (3, 3, 5), SAGITTAL, (-20, 10, number), prefix="zz")
    image = read_image(tmp_path / "a")
    assert image.spacing[2] == pytest.approx(2.5)
    assert_true(image, files)
    (notice,) = image.notices
    assert "1 of 31 files" in notice
    assert "zz000.dcm" in notice


@pytest.mark.parametrize(
    "change",
    [
        {"PixelSpacing": [1.6, 1.8]},
        {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]},
        {"Rows": 8},
    ],
)
def test_a_slice_of_another_size_or_direction_is_left_out_and_told(tmp_path, change):
    def edit(ds, k):
        if k == 11:
            for keyword, value in change.items():
                setattr(ds, keyword, value)
            ds.PixelData = ds.PixelData[: ds.Rows * ds.Columns * 2]

    files = write_series(tmp_path / "a", noise(), edit=edit)
    image = read_image(tmp_path / "a")
    assert image.shape == (20, 16, 11)
    assert_true(image, files[:11])
    assert "im011.dcm" in image.notices[0]


def test_two_stacks_are_listed_and_either_can_be_chosen(tmp_path):
    axial = write_series(tmp_path / "a", noise((6, 16, 20)))
    sagittal = write_series(tmp_path / "a", noise((5, 16, 20), 1), axes=SAGITTAL, prefix="sag")
    with pytest.raises(ImageError, match="2 volumes in one series") as refusal:
        read_image(tmp_path / "a")
    assert "axial" in str(refusal.value)
    assert "--series" in refusal.value.remedy
    for number, files in ((1, axial), (2, sagittal)):
        image = read_image(tmp_path / "a", series=number)
        assert_true(image, files)
        assert "of another part of the series" in image.notices[0]


def test_one_slice_beside_the_others_is_named_and_can_be_left_out(tmp_path):
    def edit(ds, k):
        if k == 4:
            ds.ImagePositionPatient = [-22.0, 12.0, ds.ImagePositionPatient[2]]

    files = write_series(tmp_path / "a", noise(), edit=edit)
    with pytest.raises(ImageError, match=r"2: .*, im004.dcm that lies 8.00 mm beside the others, 1 image") as refusal:
        read_image(tmp_path / "a")
    assert "move its files to a folder of their own" in refusal.value.remedy
    image = read_image(tmp_path / "a", series=1)
    assert_true(image, files[:4] + files[5:])
    assert "resampled" in image.notices[0]
    assert "1 of another part of the series (im004.dcm)" in image.notices[1]
    files[4].unlink()
    assert_true(read_image(tmp_path / "a"), files[:4] + files[5:])


def test_a_tilted_gantry_is_refused(tmp_path):
    def edit(ds, k):
        ds.ImagePositionPatient = [-30.0, 12.0 + 0.6 * k, 2.5 * k]

    write_series(tmp_path / "a", noise(), edit=edit)
    with pytest.raises(ImageError, match=r"sheared: .* by 6.6 mm"):
        read_image(tmp_path / "a")


def test_a_slice_that_is_turned_a_little_is_refused_by_its_name(tmp_path):
    turn = np.radians(0.1)

    def edit(ds, k):
        if k == 7:
            ds.ImageOrientationPatient = [np.cos(turn), np.sin(turn), 0, -np.sin(turn), np.cos(turn), 0]

    write_series(tmp_path / "a", noise((12, 512, 512)), (1.0, 1.0, 1.0), edit=edit)
    with pytest.raises(ImageError, match=r"im007.dcm lies up to 1.26 mm .*ImageOrientationPatient"):
        read_image(tmp_path / "a")


# --- distances ------------------------------------------------------------------------------------------------------


def place_along(places):
    def edit(ds, k):
        ds.ImagePositionPatient = [-30.0, 12.0, float(places[k])]

    return edit


def test_slices_that_become_thicker_are_resampled_and_told(tmp_path):
    places = [*range(30), *range(30, 180, 5)]
    volume = np.zeros((60, 8, 10), int)
    volume[30] = 1000
    files = write_series(tmp_path / "a", volume, (1, 1, 1), edit=place_along(places))
    image = read_image(tmp_path / "a")
    assert image.spacing[2] == pytest.approx(1)
    assert image.shape[2] == 176
    assert_true(image, files)  # every slice of the series is a slice of the even grid
    between = image.array[0, 0, 0, 30:36]
    np.testing.assert_array_equal(between, [1000, 800, 600, 400, 200, 0])  # linear from 30 to 35 mm
    assert "1.00 to 5.00 mm apart; they were resampled to 176 slices 1.00 mm apart" in image.notices[0]


@pytest.mark.parametrize("missing", [1, 6, 10])
def test_a_missing_slice_is_filled_and_told(tmp_path, missing):
    files = write_series(tmp_path / "a", noise())
    files.pop(missing).unlink()
    image = read_image(tmp_path / "a")
    assert image.shape[2] == 12
    assert_true(image, files)
    assert "2.50 to 5.00 mm apart" in image.notices[0]


def test_pieces_on_both_sides_of_a_wide_gap_are_listed_and_each_can_be_read(tmp_path):
    files = write_series(tmp_path / "a", noise(), edit=place_along([2.5 * k + 20 * (k > 5) for k in range(12)]))
    with pytest.raises(ImageError, match=r"beyond a gap of 22.5 mm after im005.dcm, 6 images") as refusal:
        read_image(tmp_path / "a")
    assert "--series" in refusal.value.remedy
    assert "move its files to a folder of their own" in refusal.value.remedy
    assert_true(read_image(tmp_path / "a", series=1), files[:6])
    assert_true(read_image(tmp_path / "a", series=2), files[6:])
    (tmp_path / "b").mkdir()
    for file in files[6:]:
        file.rename(tmp_path / "b" / file.name)
    assert_true(read_image(tmp_path / "a"), files[:6])
    assert_true(read_image(tmp_path / "b"), [tmp_path / "b" / file.name for file in files[6:]])


def test_thick_slices_with_one_missing_are_two_pieces(tmp_path):
    write_series(tmp_path / "a", noise((9, 8, 9)), edit=place_along([8 * k + 8 * (k > 3) for k in range(9)]))
    with pytest.raises(ImageError, match=r"beyond a gap of 16.0 mm after im003.dcm"):
        read_image(tmp_path / "a")


def test_slices_that_lie_almost_upon_each_other_do_not_make_a_huge_grid(tmp_path):
    files = write_series(tmp_path / "a", noise((9, 8, 9)), edit=place_along([0, 0.1, *range(5, 40, 5)]))
    image = read_image(tmp_path / "a")
    assert image.shape[2] <= 8 * 9 + 1
    assert "0.10 to 5.00 mm apart" in image.notices[0]
    assert_true(image, files[:1])


def test_places_off_by_less_than_a_tenth_are_read_and_told(tmp_path):
    jitter = np.random.default_rng(3).uniform(-0.09, 0.09, 12)
    jitter[[0, -1]] = 0
    files = write_series(tmp_path / "a", noise(), edit=place_along(2.5 * np.arange(12) + jitter))
    image = read_image(tmp_path / "a")
    assert_true(image, files, mm=0.1)
    assert f"up to {np.abs(jitter).max():.2f} mm from an even grid" in image.notices[0]


def test_a_single_slice_is_as_thick_as_it_says(tmp_path):
    (file,) = write_series(tmp_path / "a", noise((1, 16, 20)), (0.8, 0.9, 4.0), OBLIQUE)
    for path in (tmp_path / "a", file):
        image = read_image(path)
        assert image.spacing == pytest.approx((0.8, 0.9, 4.0))
        assert_true(image, [file])
    assert "give its folder" in image.notices[0]


# --- several images at one place ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keyword", "values", "shown"),
    [
        ("TemporalPositionIdentifier", [1, 2, 3], "Temporal Position Identifier 3"),
        ("EchoTime", [4.6, 9.2], "Echo Time 9.2"),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]], "Image Type ORIGINAL/PRIMARY/P"),
        ("AcquisitionNumber", [1, 2], "Acquisition Number 2"),
        ("TriggerTime", [0, 40, 80], "Trigger Time 80"),
    ],
)
def test_several_images_at_one_place_are_listed_and_each_can_be_chosen(tmp_path, keyword, values, shown):
    parts = []
    for number, value in enumerate(values):

        def edit(ds, k, value=value, number=number):
            setattr(ds, keyword, value)
            ds.ContentTime = f"10{number:02d}{k:02d}"
            ds.InstanceNumber = k * len(values) + number

        parts.append(write_series(tmp_path / "a", noise(seed=number), edit=edit, prefix=f"p{number}"))
    with pytest.raises(ImageError, match=f"holds {len(values)} volumes in one series") as refusal:
        read_image(tmp_path / "a")
    assert f"{len(values)}: MR series without a description, {shown}, 12 images of 20 x 16" in str(refusal.value)
    for number, files in enumerate(parts, start=1):
        assert_true(read_image(tmp_path / "a", series=number), files)


def test_echoes_of_several_time_points_are_told_apart(tmp_path):
    parts = []
    for time in (1, 2, 3):
        for echo in (5.0, 10.0):

            def edit(ds, k, time=time, echo=echo):
                ds.TemporalPositionIdentifier, ds.EchoTime = time, echo

            parts.append(write_series(tmp_path / "a", noise((4, 8, 9), len(parts)), edit=edit, prefix=f"{time}{echo}"))
    with pytest.raises(ImageError, match=r"Temporal Position Identifier 3, Echo Time 10,"):
        read_image(tmp_path / "a")
    for number, files in enumerate(parts, start=1):
        assert_true(read_image(tmp_path / "a", series=number), files)


def test_images_at_one_place_that_nothing_tells_apart_go_by_their_numbers(tmp_path):
    first = write_series(tmp_path / "a", noise(seed=0), prefix="a")
    second = write_series(
        tmp_path / "a", noise(seed=1), prefix="b", edit=lambda ds, k: setattr(ds, "InstanceNumber", 100 + k)
    )
    with pytest.raises(ImageError, match="image 2 of 2 at each place"):
        read_image(tmp_path / "a")
    assert_true(read_image(tmp_path / "a", series=1), first)
    assert_true(read_image(tmp_path / "a", series=2), second)


@pytest.mark.parametrize("new_uid", [False, True])
def test_files_that_are_there_twice_count_once(tmp_path, new_uid):
    def edit(ds, k):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.4.{k}" if not new_uid else generate_uid()

    files = write_series(tmp_path / "a", noise(), edit=edit)
    write_series(tmp_path / "a", noise()[:5], edit=edit, prefix="copy")
    image = read_image(tmp_path / "a")
    assert image.shape[2] == 12
    assert_true(image, files)
    (notice,) = image.notices
    assert "5 of 17 files" in notice
    assert "there twice" in notice


def test_images_that_all_have_one_uid_are_no_copies(tmp_path):
    def edit(ds, k):
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4.5"

    files = write_series(tmp_path / "a", noise(), edit=edit)
    image = read_image(tmp_path / "a")
    assert not image.notices
    assert_true(image, files)


def test_places_of_two_frames_of_reference_are_not_mixed(tmp_path):
    first = write_series(tmp_path / "a", noise((6, 16, 20)), FrameOfReferenceUID="1.2.3.81")
    second = write_series(
        tmp_path / "a", noise((6, 16, 20), 1), origin=(-30, 12, 20), prefix="z", FrameOfReferenceUID="1.2.3.82"
    )
    with pytest.raises(ImageError, match="frame of reference 2, 6 images"):
        read_image(tmp_path / "a")
    for number, files in ((1, first), (2, second)):
        assert_true(read_image(tmp_path / "a", series=number), files)


# --- places that are missing or wrong -------------------------------------------------------------------------------


def without_place(ds, k):
    del ds.ImagePositionPatient, ds.ImageOrientationPatient


def test_slices_without_places_go_by_their_location_and_it_is_told(tmp_path):
    def edit(ds, k):
        without_place(ds, k)
        ds.SliceLocation, ds.InstanceNumber = 3.0 * k, 12 - k

    volume = noise()
    write_series(tmp_path / "a", volume, edit=edit)
    image = read_image(tmp_path / "a")
    np.testing.assert_array_equal(image.array[0], volume.T)
    assert image.spacing == pytest.approx((0.8, 0.9, 3.0))
    assert "order by SliceLocation, their distance of 3.00 mm and which side is left" in image.notices[0]


def test_slices_without_places_go_by_their_numbers_else(tmp_path):
    volume = noise()

    def edit(ds, k):
        without_place(ds, k)
        ds.InstanceNumber = 12 - k

    write_series(tmp_path / "a", volume, edit=edit)
    image = read_image(tmp_path / "a")
    np.testing.assert_array_equal(image.array[0], volume[::-1].T)
    assert "InstanceNumber" in image.notices[0]


def test_slices_without_places_and_distance_are_refused(tmp_path):
    def edit(ds, k):
        without_place(ds, k)
        del ds.SliceThickness

    write_series(tmp_path / "a", noise(), edit=edit)
    with pytest.raises(ImageError, match=r"tell neither their places \(ImagePositionPatient \(0020,0032\)"):
        read_image(tmp_path / "a")


@pytest.mark.parametrize(
    ("keyword", "value", "why"),
    [
        ("ImagePositionPatient", [1.0, 2.0], r"ImagePositionPatient \(0020,0032\) is not 3 numbers"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], r"ImageOrientationPatient \(0020,0037\) is not two directions"),
        ("ImageOrientationPatient", [2, 0, 0, 0, 1, 0], r"ImageOrientationPatient \(0020,0037\) is not two directions"),
        ("PixelSpacing", [0, 0.8], r"PixelSpacing \(0028,0030\) is not two sizes above 0"),
        ("PixelSpacing", [0.9], r"PixelSpacing \(0028,0030\) is not 2 numbers"),
        ("RescaleSlope", 0, r"RescaleSlope \(0028,1053\) is 0"),
    ],
)
def test_a_wrong_attribute_is_refused_with_its_tag_and_file(tmp_path, keyword, value, why):
    def edit(ds, k):
        if k == 3:
            setattr(ds, keyword, value)

    files = write_series(tmp_path / "a", noise(), edit=edit)
    for path in (tmp_path / "a", files[3]):
        with pytest.raises(ImageError, match=f"im003.dcm: {why}") as refusal:
            read_image(path)
        assert refusal.value.remedy


def test_a_mosaic_is_refused(tmp_path):
    kinds = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]
    file = write(tmp_path / "a.dcm", place(data_set(noise((64, 64)), ImageType=kinds), (0, 0, 0)))
    with pytest.raises(ImageError, match="mosaic"):
        read_image(file)


def test_a_slice_without_a_place_is_left_out_and_told(tmp_path):
    files = write_series(tmp_path / "a", noise(), edit=lambda ds, k: without_place(ds, k) if k == 11 else None)
    image = read_image(tmp_path / "a")
    assert_true(image, files[:11])
    assert "1 that tells no place (im011.dcm)" in image.notices[0]
