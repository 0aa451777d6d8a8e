"""DICOM folders: other files beside the images, damaged ones, several series, and which of them is read."""

import shutil

import numpy as np
import pytest
from dicom_writing import SAGITTAL, assert_true, data_set, noise, write, write_series

from prosma.image.geometry import ImageError
from prosma.image.reading import read_image

# --- files ----------------------------------------------------------------------------------------------------------


def test_other_files_are_counted(tmp_path):
    files = write_series(tmp_path / "a", noise())
    for name in ("report.pdf", "thumb.jpg", "notes.txt", "Thumbs.db", "empty"):
        (tmp_path / "a" / name).write_bytes(b"" if name == "empty" else b"%PDF-1.4 nothing")
    (tmp_path / "a" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"x")
    image = read_image(tmp_path / "a")
    assert_true(image, files)
    (notice,) = image.notices
    assert "5 of 17 files in a were not used: 5 no DICOM file (Thumbs.db, empty, notes.txt, ...)" in notice


def test_nested_folders_and_files_without_endings_are_one_series(tmp_path):
    files = write_series(tmp_path / "a", noise())
    moved = []
    for k, file in enumerate(files):
        target = tmp_path / "a" / "STUDY 1" / f"S{k % 2}" / f"IM{k}"
        target.parent.mkdir(parents=True, exist_ok=True)
        moved.append(file.rename(target))
    image = read_image(tmp_path / "a")
    assert not image.notices
    assert_true(image, moved)


def test_a_dicomdir_stands_for_its_folder(tmp_path):
    from pydicom.fileset import FileSet

    files = write_series(tmp_path / "a", noise(), StudyID="1", StudyDate="20200101", StudyTime="10", SeriesNumber=1)
    medium = FileSet()
    for file in files:
        medium.add(file)
    medium.write(tmp_path / "medium")
    image = read_image(tmp_path / "medium" / "DICOMDIR")
    assert not image.notices
    assert_true(image, files)


@pytest.mark.parametrize("share", [0.3, 0.98])
@pytest.mark.parametrize("which", [0, 5, 11])
def test_a_series_with_a_cut_off_file_is_refused_by_its_name(tmp_path, share, which):
    files = write_series(tmp_path / "a", noise())
    files[which].write_bytes(files[which].read_bytes()[: int(share * files[which].stat().st_size)])
    with pytest.raises(ImageError, match=rf"im{which:03d}.dcm") as refusal:
        read_image(tmp_path / "a")
    assert "again" in refusal.value.remedy


def test_a_damaged_file_of_another_series_is_only_counted(tmp_path):
    files = write_series(tmp_path / "a", noise())
    other = write_series(tmp_path / "b", noise()[:1], SeriesInstanceUID="9.9.9")[0]
    data = other.read_bytes()
    (tmp_path / "a" / "x.dcm").write_bytes(data[: data.index(b"9.9.9") + 40])
    image = read_image(tmp_path / "a")
    assert_true(image, files)
    assert "1 of 13 files" in image.notices[0]
    assert "x.dcm" in image.notices[0]


def test_files_without_the_preamble_are_read(tmp_path):
    files = write_series(tmp_path / "a", noise())
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in files:
        data = file.read_bytes()
        (bare / file.stem).write_bytes(data[132:])
    assert_true(read_image(bare), files)
    assert_true(read_image(bare / "im003"), files[3:4])


# --- several series -------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path):
    """A folder of two series, with the files of each."""
    first = write_series(
        tmp_path / "study/one",
        noise((6, 16, 20)),
        SeriesInstanceUID="1.2.3.11",
        SeriesNumber=3,
        SeriesDescription="T1 ax",
    )
    second = write_series(
        tmp_path / "study/two",
        noise((7, 9, 10), 1),
        SeriesInstanceUID="1.2.3.12",
        SeriesNumber=2,
        SeriesDescription="FLAIR",
    )
    return tmp_path / "study", first, second


def test_series_are_listed(study):
    folder, *_ = study
    with pytest.raises(ImageError) as refusal:
        read_image(folder)
    text = str(refusal.value)
    assert "study holds 2 DICOM volumes: 1: MR 'FLAIR', 7 images of 10 x 9; 2: MR 'T1 ax', 6 images of 20 x 16." in text
    assert "--series" in text
    assert "Kestrel" not in text
    assert "SECRET" not in text


@pytest.mark.parametrize("choice", [2, "2", "1.2.3.11", "T1 ax", "t1"])
def test_a_series_is_chosen_by_number_uid_or_description(study, choice):
    folder, first, second = study
    image = read_image(folder, series=choice)
    assert_true(image, first)
    assert f"{len(second)} of 13 files in study were not used: 7 of other series" in image.notices[0]


@pytest.mark.parametrize("choice", [0, 3, "T2", "1.2.3", ""])
def test_a_series_that_is_not_there_is_refused_with_the_list(study, choice):
    with pytest.raises(ImageError, match=r"holds no volume .* 'FLAIR'"):
        read_image(study[0], series=choice)


def test_series_of_one_folder_become_channels(study, tmp_path):
    folder, first, _ = study
    image = read_image(folder, series=["T1 ax", "FLAIR"])
    assert image.array.shape == (2, 20, 16, 6)
    assert_true(type(image)(image.array[:1], image.ijk_to_ras), first)
    assert any("another grid" in notice for notice in image.notices)
    with pytest.raises(ImageError, match="3 series were chosen for 2 images"):
        read_image([folder, folder], series=[1, 2, 1])


def test_channels_of_two_frames_of_reference_are_told(tmp_path):
    for number in (1, 2, 3):
        facts = {
            "SeriesInstanceUID": f"1.2.3.{number}",
            "SeriesNumber": number,
            "FrameOfReferenceUID": f"1.9.{number // 3}",
        }
        write_series(tmp_path / "a" / str(number), noise(seed=number), **facts)
    told = [notice for notice in read_image(tmp_path / "a", [1, 2]).notices if "frame of reference" in notice]
    assert not told
    (told,) = [notice for notice in read_image(tmp_path / "a", [1, 2, 3]).notices if "frame of reference" in notice]
    assert told.startswith("Volume 3 belongs to another frame of reference")


def test_a_localizer_series_is_no_choice(tmp_path):
    files = write_series(tmp_path / "a", noise())
    kinds = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.5"}
    scout = write_series(tmp_path / "a", noise((2, 30, 30)), (2, 2, 2), SAGITTAL, prefix="s", **kinds)
    image = read_image(tmp_path / "a")
    assert_true(image, files)
    assert "2 of 14 files in a were not used: 2 a localizer (s000.dcm, s001.dcm)" in image.notices[0]
    assert_true(read_image(tmp_path / "a", series="1.2.3.5"), scout)


def test_pictures_without_places_are_no_volume(tmp_path):
    for k in range(3):
        write(tmp_path / "a" / f"{k}.dcm", data_set(noise((9, 8), k), "CR", InstanceNumber=k + 1))
    with pytest.raises(ImageError, match="3 pictures that are no slices of one volume"):
        read_image(tmp_path / "a")
    np.testing.assert_array_equal(read_image(tmp_path / "a", series=2).array[0, ..., 0], noise((9, 8), 1).T)


def test_a_choice_among_no_series_is_refused(tmp_path):
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(noise()), str(tmp_path / "a.nrrd"))
    with pytest.raises(ImageError, match="none of the images is DICOM"):
        read_image(tmp_path / "a.nrrd", series=1)


def test_a_link_to_a_file_that_is_not_there_is_a_missing_slice(tmp_path):
    files = write_series(tmp_path / "a", noise())
    files[-1].unlink()
    files[-1].symlink_to(tmp_path / "not fetched")
    with pytest.raises(ImageError, match=r"im011.dcm could not be read \(No such file"):
        read_image(tmp_path / "a")


def test_an_empty_folder_says_so(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.txt").write_text("x")
    with pytest.raises(ImageError, match="a holds no DICOM images"):
        read_image(tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "a")
