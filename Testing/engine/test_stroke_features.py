"""The features of Refine, each against its definition written out voxel by voxel, and Refine's constants in numbers."""

from dataclasses import replace

import numpy as np
import pytest

from prosma.correct import refine as engine
from prosma.correct import stroke_features
from prosma.correct.refine import (
    default_reach,
    dimension,
    grown_region,
    reach_of,
    refine,
    refine_box,
    surroundings,
    voxel_size,
)
from prosma.correct.stroke_features import (
    Scene,
    connected_component,
    distance_to,
    evidence,
    gaussian_average,
    gaussian_sum,
    geodesic_distance,
    likelihood_ratio,
    log_odds,
    standardised,
)
from prosma.correct.stroke_network import FEATURES

SHAPE, SPACING = (3, 7, 12), np.array([2.0, 1.5, 1.0])
VOXEL = 3.0 ** (1 / 3)
REACH = 6.0
PLACES = np.stack(np.indices(SHAPE), axis=-1).reshape(-1, 3) * SPACING
APART = np.linalg.norm(PLACES[:, None] - PLACES[None], axis=-1)  # mm between each two voxels


def random_scene(channels=2, log_odds_too=True):
    random = np.random.default_rng(3)
    own = np.zeros(SHAPE, bool)
    own[:, :, :4] = True
    stroke = np.zeros(SHAPE, bool)
    stroke[1, 3, 3:7] = True  # its first voxel is on its side already
    fixed = np.zeros(SHAPE, bool)
    fixed[0, 0, 1:3], fixed[2, 6, 10] = True, True
    fixed[1, 3, 3:5] = True  # stroked before as well: no longer earlier strokes
    odds = random.normal(0, 3, SHAPE).astype(np.float32) if log_odds_too else None
    image = random.normal(size=(channels, *SHAPE)).astype(np.float32)
    return own, stroke, Scene(image, SPACING, VOXEL, REACH, odds, fixed)


def nearest(mask):
    """Distance in mm from each voxel to the nearest one of a mask."""
    return APART[:, mask.ravel()].min(axis=1).reshape(SHAPE)


def weights(width):
    return np.exp(-(APART**2) / (2 * width**2))


def average(array, width):
    around = weights(width)
    return (around @ np.ravel(array).astype(float) / around.sum(axis=1)).reshape(SHAPE)


def total(array, width):
    return (weights(width) @ np.ravel(array).astype(float)).reshape(SHAPE)


def assert_feature(found, name, expected, tolerance=1e-4):
    column = found.features[:, found.names.index(name)]
    values = np.broadcast_to(expected, SHAPE)[found.candidates]
    np.testing.assert_allclose(column, values, atol=tolerance, rtol=tolerance, err_msg=name)


def test_features_of_place():
    own, stroke, scene = random_scene()
    found = evidence(own, stroke, scene, 1)
    away, this, fresh = nearest(stroke), own | stroke, stroke & ~own
    depth = np.minimum(nearest(own) / VOXEL, 8)
    assert_feature(found, "distance", away / REACH)
    assert_feature(found, "near", np.exp(-away / (REACH / 3)))
    assert_feature(found, "next_to", np.exp(-away / (2 * VOXEL)))
    assert_feature(found, "depth", depth)
    assert_feature(found, "shallow", np.exp(-depth))
    assert_feature(found, "share", average(this, 2.5 * VOXEL))
    assert_feature(found, "share_next_to", average(this, VOXEL))
    # the fresh voxels lie 1, 2 and 3 mm behind the border
    assert_feature(found, "thickness", 3 / VOXEL)
    assert_feature(found, "mean_thickness", 2 / VOXEL)
    assert_feature(found, "adds", 1.0)
    assert_feature(found, "extent", np.log(3))
    assert_feature(found, "reach", np.log(REACH / VOXEL))
    assert fresh.sum() == 3


def test_candidates_are_the_free_voxels_within_reach_on_the_other_side():
    own, stroke, scene = random_scene()
    found = evidence(own, stroke, scene, 1)
    expected = ~own & ~stroke & ~scene.fixed & (nearest(stroke) <= REACH)
    np.testing.assert_array_equal(found.candidates, expected)
    assert 0 < expected.sum() < (~own & ~stroke).sum()
    assert found.features.shape == (expected.sum(), 27) and found.features.dtype == np.float32


def test_features_of_strokes():
    own, stroke, scene = random_scene()
    found = evidence(own, stroke, scene, -1)
    assert_feature(found, "stroked", np.sqrt(total(stroke, 2 * VOXEL)))
    earlier = scene.fixed & ~stroke
    for name, side in (("supported", earlier & own), ("opposed", earlier & ~own)):
        assert_feature(found, name, np.exp(-nearest(side) / (REACH / 3)))
        assert_feature(found, f"{name}_next_to", np.exp(-nearest(side) / (2 * VOXEL)))
    assert_feature(found, "adds", -1.0)


def test_without_earlier_strokes_nothing_supports_or_opposes():
    own, stroke, scene = random_scene()
    alone = Scene(scene.image, SPACING, VOXEL, REACH, None, np.zeros(SHAPE, bool))
    found = evidence(own, stroke, alone, 1)
    assert found.names == FEATURES["image"]
    for name in ("supported", "supported_next_to", "opposed", "opposed_next_to"):
        assert_feature(found, name, 0.0)


@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_features_of_the_image(spread):
    own, stroke, scene = random_scene()
    scene = replace(scene, image=spread * scene.image)
    found = evidence(own, stroke, scene, 1)
    this, fresh, width = own | stroke, stroke & ~own, 2.5 * VOXEL
    local, ratio, unlike, around = (np.zeros(SHAPE) for _ in range(4))
    for channel in scene.image.astype(float):
        inside = average(channel * this, width) / average(this, width)
        outside = average(channel * ~this, width) / average(~this, width)
        variance = np.maximum(average(channel**2, width) - average(channel, width) ** 2, 0.02)
        local += np.clip(((channel - outside) ** 2 - (channel - inside) ** 2) / (2 * variance), -4, 4)
        (m1, s1), (m2, s2) = ((channel[side].mean(), channel[side].std() + 0.1) for side in (this, ~this))
        density = [np.exp(-(((channel - m) / s) ** 2) / 2) / s for m, s in ((m1, s1), (m2, s2))]
        ratio += np.log(density[0] / density[1])
        unlike += (channel - channel[fresh].mean()) ** 2
        around += (average(channel, VOXEL) - channel[fresh].mean()) ** 2
    assert_feature(found, "local_likelihood", local / 2, 1e-3)
    assert_feature(found, "likelihood", np.clip(ratio / 2, -4, 4), 1e-3)
    assert_feature(found, "unlike", np.minimum(np.sqrt(unlike / 2), 2))
    assert_feature(found, "unlike_around", np.minimum(np.sqrt(around / 2), 2))


@pytest.mark.parametrize("sign", [1, -1])
def test_features_of_the_networks_log_odds(sign):
    own, stroke, scene = random_scene()
    found = evidence(own, stroke, scene, sign)
    odds = np.clip(sign * scene.log_odds.astype(float), -4, 4)
    fresh, earlier = stroke & ~own, scene.fixed & ~stroke
    supports, opposes = fresh | (earlier & own), earlier & ~own
    # a stroke says that the log odds ought to be 1 at least, one of the other side that they ought to be -1 at most
    error = np.where(supports, np.clip(1 - odds, 0, 5), 0) - np.where(opposes, np.clip(1 + odds, 0, 5), 0)
    marks = supports | opposes
    assert_feature(found, "log_odds", odds)
    assert_feature(found, "log_odds_around", average(odds, VOXEL))
    assert_feature(found, "offset", total(error, REACH / 3) / (total(marks, REACH / 3) + 1))
    assert_feature(found, "offset_next_to", total(error, 1.5 * VOXEL) / (total(marks, 1.5 * VOXEL) + 0.5))
    assert_feature(found, "need", np.clip(-odds[fresh], -1, 4).mean())
    assert found.names == FEATURES["network"]


def test_a_stroke_far_behind_the_border_is_eight_voxels_deep():
    own, stroke = np.zeros((1, 1, 30), bool), np.zeros((1, 1, 30), bool)
    own[..., 0], stroke[..., 20] = True, True
    scene = Scene(np.zeros((1, 1, 1, 30), np.float32), np.ones(3), 1.0, 5.0, None, own & False)
    found = evidence(own, stroke, scene, 1)
    for name in ("depth", "thickness", "mean_thickness"):
        assert (found.features[:, found.names.index(name)] == 8).all()
    nothing = evidence(own & False, stroke, scene, 1)
    assert (nothing.features[:, nothing.names.index("depth")] == 5).all(), "without a border: the reach"


# --- distances


def test_distances_in_numbers():
    mask = np.zeros((1, 3, 4), bool)
    mask[0, 0, 0] = True
    found = distance_to(mask, (1, 3, 2))
    np.testing.assert_allclose(found[0, :, 0], [0, 3, 6], rtol=1e-6)
    np.testing.assert_allclose(found[0, 0], [0, 2, 4, 6], rtol=1e-6)
    assert found[0, 1, 1] == pytest.approx(13**0.5)
    assert (distance_to(mask & False, (1, 3, 2)) > 1e3).all()


def line(image, reach, start=30, spacing=2.0, voxel=2.0):
    """Geodesic distances along a line of voxels from one of them, as far as the reach."""
    stroke = np.zeros((1, 1, image.shape[-1]), bool)
    stroke[0, 0, start] = True
    none = np.zeros(stroke.shape, bool)
    scene = Scene(image, np.array([1.0, 1.0, spacing]), voxel, reach, None, none)
    return geodesic_distance(stroke, scene)[0, 0]


def test_a_path_through_an_even_image_is_as_long_as_it_is():
    found = line(np.zeros((1, 1, 1, 60), np.float32), 20.0)
    np.testing.assert_allclose(found[21:40], np.abs(np.arange(-9, 10)) * 2.0, rtol=1e-5)
    assert (found[:15] > 100).all(), "beyond the reach"


@pytest.mark.parametrize(("slope", "factor"), [(0.1, 1.2), (0.5, 2.0)])
def test_a_path_is_longer_by_the_standard_deviations_it_climbs_within_a_voxel(slope, factor):
    """Rising by `slope` a mm over voxels of 2 mm: a path is 1 + 1 * 2 * slope times as long."""
    ramp = (slope * 2.0 * np.arange(60)).astype(np.float32).reshape(1, 1, 1, 60)
    np.testing.assert_allclose(line(ramp, 30.0)[24:37], np.abs(np.arange(-6, 7)) * 2.0 * factor, rtol=1e-3)
    flat = np.concatenate([ramp, np.zeros_like(ramp)])  # of two channels one is even: the root of the mean square
    np.testing.assert_allclose(line(flat, 30.0)[31], 2.0 * (1 + (factor - 1) / 2**0.5), rtol=1e-3)


def test_the_distance_travelled_is_a_feature_and_ends_with_the_reach():
    own, stroke, scene = random_scene()
    even = Scene(0 * scene.image, SPACING, VOXEL, REACH, None, scene.fixed)
    found = evidence(own, stroke, even, 1)
    column = found.features[:, found.names.index("travelled")]
    straight = nearest(stroke)[found.candidates] / REACH
    assert column.max() == 1 and (column >= straight - 1e-5).all()
    along_axes = np.abs(PLACES[:, None] - PLACES[None]).sum(axis=-1)[:, stroke.ravel()].min(axis=1).reshape(SHAPE)
    assert (column <= np.minimum(along_axes[found.candidates] / REACH, 1) + 1e-5).all()
    assert (geodesic_distance(stroke, even)[stroke] == 0).all()


# --- small parts


def test_gaussian_filters_in_numbers():
    array = np.array([[[0, 0, 1, 0, 0, 0]]], np.float32)
    expected = np.exp(-((np.arange(6) - 2) ** 2) * 4 / 2 / 9)  # 2 mm a voxel, width 3 mm
    np.testing.assert_allclose(gaussian_sum(array, 3.0, (1, 1, 2))[0, 0], expected, rtol=1e-5)
    kernel = np.exp(-(np.subtract.outer(np.arange(6), np.arange(6)) ** 2) * 4 / 18)
    np.testing.assert_allclose(
        gaussian_average(array, 3.0, (1, 1, 2))[0, 0], (kernel / kernel.sum(axis=1, keepdims=True))[:, 2], rtol=1e-5
    )
    np.testing.assert_allclose(gaussian_average(np.full((2, 3, 4), 7.0), 1.0, (1, 2, 3)), 7, rtol=1e-5)


def test_log_odds_of_bytes_in_numbers():
    found = log_odds(np.array([0, 127, 128, 255], np.uint8))
    assert found.dtype == np.float32
    expected = [np.log(share / (256 - share)) for share in (0.5, 127.5, 128.5, 255.5)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_standardised_in_numbers():
    found = standardised(np.array([[[[1.0, 3.0, np.nan, np.inf]]], [[[5.0, 5, 5, 5]]], [[[np.nan] * 4]]]))
    assert found.reshape(3, 4).tolist() == [[-1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert found.dtype == np.float32


def test_the_likelihood_ratio_in_numbers():
    channel, this = np.array([0.0, 2.0, 10.0, 14.0]), np.array([True, True, False, False])
    # normal distributions around 1 and 12 with widths 1.1 and 2.1
    expected = [((v - 12) / 2.1) ** 2 / 2 + np.log(2.1) - ((v - 1) / 1.1) ** 2 / 2 - np.log(1.1) for v in channel]
    np.testing.assert_allclose(likelihood_ratio(channel, this), expected)
    assert likelihood_ratio(channel, np.ones(4, bool)) == 0


def test_a_stroke_takes_the_parts_along_that_touch_it_by_faces():
    fresh, all_of_it = np.zeros((1, 4, 5), bool), np.zeros((1, 4, 5), bool)
    fresh[0, 1, 1] = True
    all_of_it[0, 1, 1:3] = all_of_it[0, 2, 2] = True  # touches
    all_of_it[0, 3, 3] = all_of_it[0, 0, 4] = True  # by a corner, and not at all
    found = connected_component(fresh, all_of_it)
    assert np.argwhere(found).tolist() == [[0, 1, 1], [0, 1, 2], [0, 2, 2]]


# --- the decision


def networks_of(weight, shift, name="distance"):
    """In place of the fitted networks: log odds are one feature times a weight, and a shift."""
    stand_in = {}
    for source, names in FEATURES.items():
        matrix = np.zeros((len(names), 1), np.float32)
        matrix[names.index(name)] = weight
        for dimensions in (2, 3):
            stand_in[source, dimensions] = [(matrix, np.array([shift], np.float32))]
    return lambda: stand_in


@pytest.mark.parametrize(("log_odds_of_all", "joins"), [(0.49, False), (0.51, True), (-1.0, False)])
def test_half_a_unit_of_log_odds_must_speak_for_a_change(monkeypatch, log_odds_of_all, joins):
    own, stroke, scene = random_scene()
    monkeypatch.setattr(engine, "load_networks", networks_of(0, log_odds_of_all))
    found = grown_region(own, stroke, scene, 1)
    np.testing.assert_array_equal(found, evidence(own, stroke, scene, 1).candidates & joins)


def test_the_network_of_the_source_and_of_the_dimensions_is_asked(monkeypatch):
    asked = []

    class Watched(dict):
        def __getitem__(self, key):
            asked.append(key)
            return super().__getitem__(key)

    monkeypatch.setattr(engine, "load_networks", lambda: Watched(networks_of(0, 1)()))
    for shape in ((3, 8, 8), (1, 8, 8)):
        mask, stroke = np.zeros(shape, bool), np.zeros(shape, bool)
        mask[..., :4], stroke[..., 4:6, 4:6] = True, True
        for probability in (None, np.zeros(shape, np.uint8)):
            refine(mask, np.zeros(shape), stroke, None, (1, 1, 1), probability)
    assert asked == [("image", 3), ("network", 3), ("image", 2), ("network", 2)]


def test_from_the_image_alone_nothing_grows_where_there_is_no_border(monkeypatch):
    own, stroke, scene = random_scene(log_odds_too=False)
    monkeypatch.setattr(engine, "load_networks", networks_of(0, 1))
    assert not grown_region(own & False, stroke, scene, 1).any()
    assert grown_region(own, stroke, scene, 1).any()


def test_what_is_added_joins_and_what_is_removed_goes_and_takes_along(monkeypatch):
    """Everything within half the reach of a stroke changes sides, but for the strokes themselves."""
    monkeypatch.setattr(engine, "load_networks", networks_of(-100, 51))
    mask = np.zeros((1, 1, 40), bool)
    mask[..., 10:30] = True
    add, remove = np.zeros(mask.shape, bool), np.zeros(mask.shape, bool)
    add[..., 34], remove[..., 14] = True, True
    none = np.zeros(mask.shape, bool)
    scene = Scene(np.zeros((1, *mask.shape), np.float32), np.ones(3), 1.0, 8.0, None, none)
    found = refine_box(mask, add, remove, scene)
    expected = mask.copy()
    expected[..., 31:39] = expected[..., 30] = True  # 34 - 4 to 34 + 4
    expected[..., 10:19] = False  # 14 - 4 to 14 + 4
    np.testing.assert_array_equal(found, expected)
    both = refine_box(mask, add | remove, remove, scene)
    np.testing.assert_array_equal(both, expected, "removing wins where both lie")
    np.testing.assert_array_equal(refine_box(mask, none, none, scene), mask)
    outside = np.zeros(mask.shape, bool)
    outside[..., 4] = True
    np.testing.assert_array_equal(refine_box(mask, outside, outside, scene), mask, "nor does it take others along")


def test_networks_are_told_whether_a_stroke_adds_or_removes(monkeypatch):
    monkeypatch.setattr(engine, "load_networks", networks_of(1, 0, "adds"))
    mask, add, remove = (np.zeros((1, 1, 40), bool) for _ in range(3))
    mask[..., 10:30], add[..., 34], remove[..., 14] = True, True, True
    none = np.zeros(mask.shape, bool)
    scene = Scene(np.zeros((1, *mask.shape), np.float32), np.ones(3), 1.0, 3.0, None, none)
    found = refine_box(mask, add, remove, scene)
    assert np.flatnonzero(found[0, 0]).tolist() == [*range(10, 14), *range(15, 30), *range(31, 38)]


# --- reach


def test_dimensions_and_sizes_in_numbers():
    assert dimension((2, 3, 4)) == 3 and dimension((3, 1, 4)) == 2
    assert voxel_size((1, 5, 5), (9, 2, 8)) == pytest.approx(4)
    assert voxel_size((3, 5, 5), (1, 2, 4)) == pytest.approx(2)
    assert voxel_size((1, 1, 1), (1, 2, 4)) == pytest.approx(2)


def test_how_far_a_stroke_reaches_in_numbers():
    assert reach_of(10, (5, 5, 5), (1, 1, 1)) == 40, "four radii of the brush"
    assert reach_of(1, (5, 5, 5), (1, 2, 4)) == pytest.approx(24), "twelve voxels at least"
    disc = np.zeros((40, 20, 20), bool)
    disc[30, 6:11, 2:18] = True  # 5 voxels across: from its middle 3 to the nearest voxel outside
    box = ((30, 31), (6, 11), (2, 18))
    assert default_reach(disc, box, np.array([1.0, 1.0, 1.0])) == pytest.approx(4 * 3)
    assert default_reach(disc, box, np.array([1.0, 2.0, 2.0])) == pytest.approx(4 * 6)
    assert default_reach(disc, box, np.array([50.0, 2.0, 2.0])) == pytest.approx(4 * 16), "8 voxels of 2 mm"


def test_the_box_around_a_stroke_in_numbers():
    stroke = np.zeros((5, 60, 60), bool)
    stroke[2, 30, 20:25] = True
    image = np.random.default_rng(0).normal(size=(2, *stroke.shape))
    fixed = np.arange(60)[None, None] + 0 * stroke > 40
    extent = (2, 3), (30, 31), (20, 25)
    box, scene = surroundings(
        stroke, extent, image, np.array([4.0, 1.0, 2.0]), np.full(stroke.shape, 200, np.uint8), 5.0, fixed
    )
    assert scene.voxel == pytest.approx(2) and scene.reach == pytest.approx(24)  # twelve voxels of 2 mm
    assert box == ((0, 5), (6, 55), (8, 37))
    assert scene.image.shape == (2, 5, 49, 29) and abs(scene.image.mean()) < 1e-6
    assert scene.log_odds.shape == (5, 49, 29) and scene.log_odds[0, 0, 0] == pytest.approx(np.log(200.5 / 55.5))
    assert scene.fixed.sum() == 0
    wide, scene = surroundings(stroke, extent, image, np.array([4.0, 1.0, 2.0]), None, 41.0, fixed)
    assert wide == ((0, 5), (0, 60), (0, 46)) and scene.reach == 41 and scene.log_odds is None
    assert scene.fixed.sum() == 5 * 60 * 5


def test_constants_that_the_networks_were_fitted_with():
    """The weights know distances and depths in these units; another unit needs another fit."""
    assert (stroke_features.SURE, stroke_features.EDGE_COST, stroke_features.CONTEXT) == (4, 1, 3)
    assert (stroke_features.NEARBY, stroke_features.MOST_DEEP) == (2.5, 8)
    assert (engine.REACH, engine.LEAST_REACH, engine.MARGIN) == (4, 12, 0.5)
