"""Structures in one piece: what lies apart is left out, told, and kept for those who ask for it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from test_cli import run

from prosma.image.reading import read_labels
from prosma.image.writing import write_labels
from prosma.inference.one_piece import keep_one_piece, largest_part, size
from prosma.inference.segmenter import Segmenter
from prosma.learning.packing.card import description_lines
from prosma.package.model_package import ModelPackage
from prosma.package.schema import PackageError, check_description
from tiny_model import make_tiny_package

TOUCHING = np.ones((3, 3, 3))
LABELS = [{"value": 1, "name": "liver"}, {"value": 2, "name": "spleen"}, {"value": 3, "name": "kidney"}]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> ModelPackage:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_tiny_package(folder, spacing=None, patch_size=[16, 16, 16], labels=3, one_piece=[[1], [2, 3]])


def check_pieces(before: np.ndarray, after: np.ndarray, groups) -> None:
    """Of each group one component is left, unchanged, and none was larger; other labels are as they were."""
    expected_gone = np.zeros(before.shape, bool)
    for group in groups:
        mask, left = np.isin(before, group), np.isin(after, group)
        numbered, count = ndimage.label(mask, TOUCHING)
        assert left.sum() == max(np.bincount(numbered.ravel())[1:], default=0)
        assert len(np.unique(numbered[left])) == min(count, 1)
        expected_gone |= mask & ~left
    np.testing.assert_array_equal(after, np.where(expected_gone, 0, before))


@given(
    arrays.arrays(np.uint8, st.tuples(*[st.integers(1, 7)] * 3), elements=st.integers(0, 3)),
    st.sampled_from([[[1]], [[1], [2, 3]], [[3], [2]], [[1, 2, 3]]]),
)
def test_of_each_group_the_largest_component_stays(labels, groups):
    before = labels.copy()
    told = keep_one_piece(labels, groups, LABELS, 0.5)
    check_pieces(before, labels, groups)
    gone = {label["name"]: int((before == label["value"]).sum() - (labels == label["value"]).sum()) for label in LABELS}
    two_digits = {
        name: np.format_float_positional(count / 2, 2, fractional=False, trim="-") for name, count in gone.items()
    }
    wanted = ", ".join(f"{name} {two_digits[name]} ml" for name, count in gone.items() if count)
    assert told == (
        [f"Left out, because it lay apart from the largest part of its structure: {wanted}."] if wanted else []
    )


@pytest.mark.parametrize(
    ("voxels", "words"), [(1, "0.0035 ml"), (286, "1 ml"), (2857, "10 ml"), (48_700, "170 ml"), (2_000_000, "7000 ml")]
)
def test_volumes_are_told_with_two_digits_and_no_powers_of_ten(voxels, words):
    assert size(voxels, 0.0035) == words and size(voxels, None) == f"{voxels} pixels"


def test_groups_come_in_their_order():
    """The heart as a whole first, then its ventricle: a larger spot of it that lies apart must not win."""
    labels = np.zeros((20, 3, 3), np.uint8)
    labels[:6], labels[6:8], labels[12:15] = 1, 2, 2
    keep_one_piece(labels, [[1, 2], [2]], LABELS, None)
    assert labels[:8].all() and not labels[8:].any()


def test_the_largest_part_is_connected_by_corners_too():
    mask = np.zeros((6, 6, 6), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    mask[5, 5, 4:] = True
    assert np.argwhere(largest_part(mask)).tolist() == [[0, 0, 0], [1, 1, 1], [2, 2, 2]]
    assert not largest_part(np.zeros((2, 2, 2), bool)).any()


def test_a_model_says_what_is_in_one_piece(package, volume):
    segmenter = Segmenter(package, "cpu")
    every, kept = segmenter.segment(volume, all_parts=True), segmenter.segment(volume)
    assert (every.labels != kept.labels).any()
    check_pieces(every.labels, kept.labels, package.one_piece)
    assert any(notice.startswith("Left out, because") for notice in kept.notices)
    assert not any(notice.startswith("Left out, because") for notice in every.notices)


def test_all_parts_can_be_kept_by_the_command_line(package, volume, tmp_path, capsys):
    image = tmp_path / "image.nii.gz"
    write_labels(image, np.asarray(volume.array[0] - volume.array.min(), np.uint8), volume, [])
    parts = {}
    for name, more in (("kept", []), ("every", ["--all-parts"])):
        assert run("segment", image, "-m", package.folder, "-o", tmp_path / f"{name}.nrrd", *more) == 0
        parts[name] = read_labels(tmp_path / f"{name}.nrrd").array[0]
        assert ("lay apart" in capsys.readouterr().err) == (name == "kept")
    check_pieces(parts["every"], parts["kept"], package.one_piece)
    # What was made without the option is another result, and is made anew.
    assert run("segment", image, "-m", package.folder, "-o", tmp_path / "kept.nrrd", "--all-parts") == 0
    np.testing.assert_array_equal(read_labels(tmp_path / "kept.nrrd").array[0], parts["every"])


def test_only_labels_that_are_there_can_be_in_one_piece(package):
    with pytest.raises(PackageError, match=r"one_piece\[1\].*values of labels, 1 to 3"):
        check_description({**package.model, "one_piece": [[1], [4]]})


def test_the_card_says_what_is_in_one_piece(package):
    line = "- Only the largest connected part is kept of: structure 1, structure 2 with structure 3"
    assert line in description_lines(package.model)
