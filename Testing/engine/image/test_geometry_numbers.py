"""Geometry in numbers that can be checked by hand (training/prosma/image/geometry.py)."""

import numpy as np
import pytest

from prosma.image.geometry import (
    ANATOMY,
    MOST_INFINITE,
    Image,
    ImageError,
    check_matrix,
    checked_image,
    closest_orientation,
    finite_image,
    is_sheared,
    plan_canonical,
    resample_to_grid,
    resampled_size,
    same_grid,
    stack_channels,
    to_canonical,
    usable_image,
)


def image(array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), **more):
    matrix = np.diag([*spacing, 1.0])
    matrix[:3, 3] = origin
    array = np.asarray(array)
    return Image(array if array.ndim == 4 else array[None], matrix, **more)


def row(*values):
    """(1, n, 1, 1)"""
    return np.array(values).reshape(1, -1, 1, 1)


# --- an image's size and place


def test_spacing_shape_and_volume_of_a_turned_image():
    turn = np.array([[0, -2.0, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]])
    turned = Image(np.zeros((2, 3, 4, 5)), turn)
    assert turned.shape == (3, 4, 5)
    assert turned.spacing == (3, 2, 4)
    assert turned.voxel_ml == pytest.approx(0.024)


def test_a_crop_in_numbers():
    turn = np.array([[0, -2.0, 0, 5], [3, 0, 0, 6], [0, 0, -4, 7], [0, 0, 0, 1]])
    part = Image(np.arange(60).reshape(1, 3, 4, 5), turn, ("said",)).cropped(((1, 3), (2, 3), (1, 5)))
    assert part.ijk_to_ras[:3, 3].tolist() == [5 - 2 * 2, 6 + 3 * 1, 7 - 4 * 1]
    assert part.shape == (2, 1, 4) and part.array[0, 0, 0, 0] == 20 + 10 + 1
    assert part.notices == ("said",) and part.nifti is None
    assert turn[:3, 3].tolist() == [5, 6, 7], "the whole image's matrix stays"


# --- what no model can use


def sheared(cosine):
    """Axis J at so large a cosine to axis I."""
    matrix = np.eye(4)
    matrix[:3, 1] = [cosine, np.sqrt(1 - cosine**2), 0]
    return matrix


@pytest.mark.parametrize(("cosine", "refused"), [(0.0, False), (0.0009, False), (0.0011, True), (-0.0011, True)])
def test_axes_are_sheared_from_a_cosine_of_a_thousandth_on(cosine, refused):
    assert is_sheared(sheared(cosine)) is refused
    assert is_sheared(sheared(cosine) @ np.diag([0.5, 20.0, 3.0, 1.0])) is refused, "whatever the spacing"
    if refused:
        with pytest.raises(ImageError, match="right angles"):
            check_matrix(sheared(cosine))


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        (np.diag([1.0, np.inf, 1, 1]), "not a finite"),
        (np.eye(3), "not a finite"),
        (np.diag([1.0, 0, 1, 1]), "singular"),
        (np.diag([1.0, 1e-10, 1, 1]), "singular"),
        (sheared(1 - 1e-14), "singular"),
        (sheared(1 - 1e-10), "right angles"),
    ],
)
def test_which_matrices_are_refused(matrix, words):
    with pytest.raises(ImageError, match=words):
        check_matrix(matrix)


def test_tiny_voxels_are_no_fault():
    matrix = check_matrix(np.diag([1e-8, 2e-8, 3e-8, 1]).astype(np.float32))
    assert matrix.dtype == np.float64


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 4)), "has 2 dimensions"),
        (np.zeros((1, 4, 4, 4, 2)), "has 4 dimensions"),
        (np.zeros((1, 4, 0, 4)), "no voxels"),
        (np.zeros((1, 2, 2, 2), np.complex64), "complex numbers as voxels"),
        (np.zeros((1, 2, 2, 2), "M8[s]"), "type datetime64"),
    ],
)
def test_which_arrays_are_refused(array, words):
    with pytest.raises(ImageError, match=words):
        usable_image(Image(array, np.eye(4)))


@pytest.mark.parametrize("kind", ["?", "i2", "u1", "f4"])
def test_truth_values_and_numbers_are_taken(kind):
    assert usable_image(image(np.zeros((1, 2, 2, 2), kind))).ijk_to_ras.dtype == np.float64


def test_what_is_not_finite_takes_the_channels_own_ends():
    array = np.full((2, 2000, 1, 1), 3.0)
    array[0, :6, 0, 0] = [2, np.nan, 5, np.inf, -np.inf, 1e39]
    array[1, :3, 0, 0] = [20, np.nan, 60]
    found = checked_image(image(array, notices=("before",)))
    assert found.array[0, :7, 0, 0].tolist() == [2, 2, 5, 5, 2, 5, 3]
    assert found.array[1, :4, 0, 0].tolist() == [20, 3, 60, 3]
    assert found.notices[0] == "before" and found.notices[1].startswith("5 voxels")
    assert np.isnan(array[0, 1, 0, 0])


def test_more_than_a_share_of_infinities_in_a_channel_is_refused_and_nan_is_not():
    few = round(1000 * MOST_INFINITE)
    for infinite, refused in ((few - 1, False), (few + 1, True)):
        array = np.zeros((2, 1000, 1, 1))
        array[1, :infinite] = np.inf
        array[:, 500:900] = np.nan
        if refused:
            with pytest.raises(ImageError, match="infinite or beyond"):
                finite_image(image(array))
        else:
            assert np.isfinite(finite_image(image(array)).array).all()


def test_finite_images_are_given_back_as_they_are():
    largest = np.finfo(np.float32).max
    for array in (row(1.0, 2.0), row(1, 2), row(-largest, largest), np.full((1, 1, 1, 1), largest, np.float32)):
        whole = image(array)
        assert finite_image(whole) is whole


def test_one_channel_without_a_number_is_enough_to_refuse():
    with pytest.raises(ImageError, match="no finite number"):
        finite_image(image(np.array([1.0, np.nan]).reshape(2, 1, 1, 1)))


# --- the model's grid


def test_sizes_of_a_grid_in_numbers():
    assert resampled_size(10, 1.0, 2.0) == 5
    assert resampled_size(10, 0.7, 1.0) == 7
    assert resampled_size(11, 1.0, 2.0) == 6, "the half goes up"
    assert resampled_size(10, 0.5498, 1.0) == 5 and resampled_size(10, 0.5499, 1.0) == 6, "the boundary lies at .499"
    assert resampled_size(1, 0.2, 5.0) == 1, "never none"


@pytest.mark.parametrize(
    ("columns", "orientation", "axes", "flips"),
    [
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], "RAS", (0, 1, 2), (False, False, False)),
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], "LPI", (0, 1, 2), (True, True, True)),
        ([(0, 0, 1), (-1, 0, 0), (0, 1, 0)], "RAS", (1, 2, 0), (True, False, False)),
        ([(0, 0, 1), (-1, 0, 0), (0, 1, 0)], "SAL", (0, 2, 1), (False, False, False)),
        ([(0.8, 0.6, 0), (-0.6, 0.8, 0), (0, 0, 1)], "RAS", (0, 1, 2), (False, False, False)),
        ([(0.6, 0.8, 0), (-0.8, 0.6, 0), (0, 0, 1)], "RAS", (1, 0, 2), (True, False, False)),
    ],
)
def test_the_closest_orientation_in_numbers(columns, orientation, axes, flips):
    matrix = np.eye(4)
    matrix[:3, :3] = np.array(columns).T * (0.5, 7, 3)  # spacing has no say
    assert closest_orientation(matrix, orientation) == (axes, flips)


def test_letters_of_anatomy_are_axes_of_the_patient_and_their_direction():
    assert {ANATOMY[letter] for letter in "RAS"} == {(0, 1), (1, 1), (2, 1)}
    assert {ANATOMY[letter] for letter in "LPI"} == {(0, -1), (1, -1), (2, -1)}


def test_the_longest_voxel_edge_does_not_decide_the_orientation():
    # A rotation by the quaternion (-4, 3, 0, 4) / sqrt(41). |cosines| of the right permutation: 32 + 23 + 32 = 87 of 41;
    # 24 + 24 + 32 = 80 of the next one, which would win if the columns were not divided by their lengths.
    turn = np.array([[-9, -24, 32], [-24, -23, -24], [32, -24, -9]]) / 41
    matrix = np.eye(4)
    matrix[:3, :3] = turn * (1, 20, 1)
    assert closest_orientation(matrix, "RAS") == ((2, 1, 0), (False, True, False))


def test_the_orientation_of_the_smallest_voxels_is_that_of_their_axes():
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.6, -0.8, 0], [0.8, 0.6, 0], [0, 0, 1]]) * 1e-3
    assert closest_orientation(matrix, "RAS") == ((1, 0, 2), (True, False, False))


def test_at_45_degrees_the_first_permutation_wins_in_spite_of_rounding():
    for angle in (np.pi / 4, np.pi / 4 + 1e-7):
        c, s = np.cos(angle), np.sin(angle)
        matrix = np.eye(4)
        matrix[:2, :2] = [[c, -s], [s, c]]
        assert closest_orientation(matrix, "RAS")[0] == (0, 1, 2)


def test_the_way_to_a_models_grid_in_numbers():
    turn = np.array([[0, -2.0, 0, 0], [0.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    brought = Image(np.zeros((1, 8, 6, 5)), turn)  # I runs to anterior (0.5 mm), J to the left (2 mm), K up (3 mm)
    plan = plan_canonical(brought, {"dimension": 3, "orientation": "RAS", "spacing": [1.0, 1.0, 1.5]})
    assert (plan.axes, plan.flips) == ((1, 0, 2), (True, False, False))
    assert plan.oriented_shape == (6, 8, 5)
    assert plan.size == (12, 4, 10) and plan.spacing == (1, 1, 1.5) and plan.resampled
    as_it_is = plan_canonical(brought, {"dimension": 3, "orientation": "RAS"})
    assert as_it_is.size == (6, 8, 5) and as_it_is.spacing == (2, 0.5, 3) and not as_it_is.resampled
    unturned = plan_canonical(brought, {"dimension": 3, "orientation": None, "spacing": [1, 1, 1]})
    assert (unturned.axes, unturned.flips, unturned.size) == ((0, 1, 2), (False,) * 3, (4, 12, 15))


def test_flat_models_turn_nothing_and_keep_the_number_of_slices():
    turn = np.array([[0, -2.0, 0, 0], [0.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    brought = Image(np.zeros((1, 8, 6, 5)), turn)
    plan = plan_canonical(brought, {"dimension": 2, "orientation": "RAS", "resize": [16, 3]})
    assert (plan.axes, plan.size, plan.spacing) == ((0, 1, 2), (16, 3, 5), (0.25, 4, 3))
    spaced = plan_canonical(brought, {"dimension": 2, "orientation": None, "spacing": [1.0, 1.0]})
    assert spaced.size == (4, 12, 5)


def test_a_view_follows_the_axes_and_writes_through():
    turn = np.array([[0, -2.0, 0, 0], [0.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])
    array = np.arange(24).reshape(1, 2, 3, 4)
    plan = plan_canonical(Image(array, turn), {"dimension": 3, "orientation": "RAS"})
    view = plan.view(array)
    assert view.shape == (1, 3, 2, 4)
    assert view[0, 0, 0, 0] == array[0, 0, 2, 0] and view[0, 2, 1, 3] == array[0, 1, 0, 3]
    assert plan.view(array[0])[0, 1, 2] == array[0, 1, 2, 2]
    view[0, 0, 0, 0] = 99
    assert array[0, 0, 2, 0] == 99


def test_what_a_model_sees_is_an_array_of_its_own():
    whole = image(np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2))
    array, _ = to_canonical(whole, {"dimension": 3, "orientation": "RAS"})
    array[...] = -1
    assert whole.array.max() == 7
    assert array.dtype == np.float32 and array.flags.c_contiguous


def test_labels_are_brought_to_the_models_grid_by_the_nearest():
    labels = np.array([1, 2, 3, 4, 5, 6]).reshape(6, 1, 1)
    plan = plan_canonical(image(labels), {"dimension": 3, "orientation": "LAS", "spacing": [2.0, 1, 1]})
    assert plan.bring_labels(labels).flatten().tolist() == [5, 3, 1], "backwards, the second of each pair"


# --- several images


def test_grids_are_the_same_to_a_thousandth_of_a_voxel():
    first = image(np.zeros((2, 3, 4)), (1.0, 1.0, 2.0))
    for change, same in ((0.0009, True), (0.0011, False)):
        moved = image(np.zeros((2, 3, 4)), (1.0, 1.0, 2.0), (0, change, 0))
        assert same_grid(first, moved) is same
    assert not same_grid(first, image(np.zeros((2, 3, 5)), (1.0, 1.0, 2.0)))
    fine = image(np.zeros((2, 3, 4)), (2.0, 0.5, 2.0))
    for change, same in ((0.0004, True), (0.0006, False)):
        assert same_grid(fine, image(np.zeros((2, 3, 4)), (2.0, 0.5, 2.0), (0, 0, change))) is same, "the shortest edge"


def test_resampling_to_a_grid_in_numbers():
    source = image(row(10.0, 20.0, 40.0))  # at 0, 1, 2 mm
    target = image(np.zeros((7, 1, 1)), (0.5, 1, 1), (-1.0, 0, 0))  # -1, -0.5, 0, 0.5, 1, 1.5, 2
    found = resample_to_grid(source, target)
    assert found.shape == (1, 7, 1, 1) and found.dtype == np.float32
    # outside the extent (-0.5 ... 2.5) the lowest value; inside, but beyond the centres, the nearest one
    assert found.flatten().tolist() == [10, 10, 10, 15, 20, 30, 40]
    middle = image(row(30.0, 20.0, 40.0))
    around = image(np.zeros((7, 1, 1)), (0.9, 1, 1), (-0.9, 0, 0))  # -0.9, 0, 0.9, 1.8, 2.7, 3.6, 4.5
    assert resample_to_grid(middle, around).flatten().tolist() == pytest.approx([20, 30, 21, 36, 20, 20, 20])
    beyond = image(np.zeros((3, 1, 1)), (0.5, 1, 1), (2.0, 0, 0))  # 2, 2.5, 3
    assert resample_to_grid(source, beyond).flatten().tolist() == [40, 40, 10]


def test_resampling_to_a_grid_is_linear_along_every_axis_and_channel_by_channel():
    i, j, k = np.indices((4, 5, 6))
    source = image(np.stack([100 * i + 10 * j + k, 7 - k]).astype(np.float32), (2.0, 3.0, 4.0), (1, 2, 3))
    turn = np.array([[0, 2.0, 0, 3.0], [3.0, 0, 0, 3.5], [0, 0, 4.0, 5.0], [0, 0, 0, 1]])
    found = resample_to_grid(source, Image(np.zeros((1, 4, 2, 5)), turn))
    a, b, c = np.indices(
        (4, 2, 5)
    )  # the target's first axis is the source's second: i = 1 + b, j = 0.5 + a, k = 0.5 + c
    np.testing.assert_allclose(found[0], 100 * (1 + b) + 10 * (0.5 + a) + 0.5 + c, rtol=1e-5)
    np.testing.assert_allclose(found[1], 6.5 - c, rtol=1e-5)


def test_outside_each_channel_has_its_own_lowest_value():
    source = image(np.array([[5.0, 3.0], [-2.0, 8.0]]).reshape(2, 2, 1, 1))
    far = image(np.zeros((1, 1, 1)), origin=(50, 0, 0))
    assert resample_to_grid(source, far).flatten().tolist() == [3, -2]


def test_channels_are_stacked_in_order_with_all_notices():
    first, second = image(row(1.0, 2.0), notices=("one",)), image(row(3.0, 4.0), notices=("two",))
    shifted = image(row(5.0, 9.0), origin=(0.5, 0, 0))
    found = stack_channels([first, second, shifted])
    assert found.array.reshape(3, 2).tolist() == [[1, 2], [3, 4], [5, 7]]
    assert found.notices[:2] == ("one", "two") and found.notices[2].startswith("Volume 3 lies on another grid")
    assert len(found.notices) == 3
    alone = stack_channels([first])
    assert alone.array is first.array and alone.notices == ("one",)


def test_another_frame_of_reference_is_told_where_both_channels_name_theirs():
    for one, other, told in (("1.2", "1.3", 1), ("1.2", "1.2", 0), ("1.2", "", 0), ("", "1.2", 0), ("", "", 0)):
        pair = [image(row(1.0, 2.0), reference=one), image(row(3.0, 4.0), reference=other)]
        notices = stack_channels(pair).notices
        assert len(notices) == told and all(
            "Volume 2 belongs to another frame of reference" in text for text in notices
        )
