"""What holds for any strokes in any image, through `Segmenter.prompt`: random cases, random weights, real inference."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prosma import Image, Prompts, Segmenter
from prosma.correct.crop import cube, cut, marked
from prosma.correct.prompt_input import Layers, Placed
from prosma.correct.prompting import tiles
from prosma.image.resampling import resample
from tiny_model import make_tiny_promptable

QUICK = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
LEAST = 32  # voxels of the finest axis that the network looks at
EAGER = 0  # number of the network that says that all it sees belongs to the object
GROWN = 1.5**4  # times as long as at first can its cube become: docs/strokes.md


@pytest.fixture(scope="module")
def segmenters(tmp_path_factory):
    """By dimension; the weights of the second of each kind are others."""
    folder, kinds = tmp_path_factory.mktemp("prompt"), {3: None, 11: None, EAGER: [-20.0, 20.0]}
    return {
        (dimension, seed): Segmenter(
            make_tiny_promptable(folder / f"{dimension}-{seed}", dimension, id=f"p{seed}", seed=seed, bias=bias), "cpu"
        )
        for dimension in (2, 3)
        for seed, bias in kinds.items()
    }


@st.composite
def cases(draw, long=False):
    """(image, shape, random generator, which network): 2D or 3D, odd sizes, anisotropic spacing; or one long side."""
    flat, spacings = draw(st.booleans()), [0.3, 0.7, 1.0, 2.5, 5.0]
    shape = (*draw(st.tuples(st.integers(1, 45), st.integers(2, 45))), 1 if flat else draw(st.integers(2, 39)))
    spacing = draw(st.tuples(*[st.sampled_from(spacings)] * 3))
    if long:
        shape, spacing = (draw(st.integers(800, 1100)), *[min(n, 7) for n in shape[1:]]), (max(spacing), *spacing[1:])
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = rng.normal(100, 30, (1, *shape)).astype(draw(st.sampled_from([np.int16, np.float32])))
    return Image(array, np.diag([*spacing, 1.0])), shape, rng, (2 if flat else 3, draw(st.sampled_from([3, 11])))


def stroke(shape, rng):
    """A straight stroke along an axis, often at the image's border."""
    array, axis = np.zeros(shape, bool), int(rng.integers(3))
    place = [int(rng.choice([0, n - 1, rng.integers(n)])) for n in shape]
    index = [slice(p, p + 1) for p in place]
    index[axis] = slice(place[axis], place[axis] + int(rng.integers(1, 9)))
    array[tuple(index)] = True
    return array


def random_box(shape, rng):
    ends = [sorted(rng.choice(n + 1, 2, replace=False)) for n in shape]
    return tuple((int(low), int(high)) for low, high in ends)


def reach(said, image, farthest):
    """Where something may change: the largest cube that may be looked at touches what was said, on any side."""
    places = np.argwhere(said)
    sizes = (np.ptp(places, axis=0) + 1) * image.spacing
    finest = min(s for s, n in zip(image.spacing, said.shape, strict=True) if n > 1)
    edge = max(farthest * sizes.max(), LEAST * GROWN * finest)
    box = [
        slice(max(0, int(low - edge / s) - 2), int(high + edge / s) + 3)
        for low, high, s in zip(places.min(0), places.max(0), image.spacing, strict=True)
    ]
    near = np.zeros(said.shape, bool)
    near[tuple(box)] = True
    return near


@QUICK
@given(cases())
def test_strokes_are_honoured_exactly_and_what_is_beyond_the_answer_is_untouched(segmenters, case):
    image, shape, rng, which = case
    add, remove, mask = stroke(shape, rng), stroke(shape, rng), rng.random(shape) > 0.6
    kept = [array.copy() for array in (add, remove, mask, image.array)]
    result = segmenters[which].prompt(image, Prompts(add=add, remove=remove, mask=mask))
    after = result.on(mask)
    assert after[add & ~remove].all() and not after[remove].any()
    outside = np.ones(shape, bool)
    outside[tuple(slice(*side) for side in result.box)] = False
    assert np.array_equal(after[outside], mask[outside])
    assert all(map(np.array_equal, kept, (add, remove, mask, image.array))), "what was given is not written to"


@QUICK
@given(cases(long=True), st.sampled_from(["strokes", "lasso", "box"]))
def test_what_is_beyond_the_reach_of_what_was_said_never_changes(segmenters, case, kind):
    image, shape, rng, (dimension, _seed) = case
    said, mask = stroke(shape, rng), rng.random(shape) > 0.9
    box = [(int(axis.min()), int(axis.max()) + 1) for axis in np.nonzero(said)]
    prompts = {"strokes": {"add": said}, "lasso": {"region": said}, "box": {"box": box}}[kind]
    result = segmenters[dimension, EAGER].prompt(image, Prompts(mask=mask, **prompts))
    near = reach(said, image, (2.5 if kind == "strokes" else 1.6) * GROWN)
    assert not near.all(), "the image is longer than that"
    assert not (result.on(mask) != mask)[~near].any()
    assert (result.on(mask) != mask).any()


@QUICK
@given(cases())
def test_earlier_strokes_stay_true_through_a_whole_session(segmenters, case):
    image, shape, rng, which = case
    add, remove, mask = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    for number in range(4):
        new, adds = stroke(shape, rng), number == 0 or rng.random() < 0.5
        before = mask.copy()
        prompts = Prompts(
            add=new if adds else None, remove=None if adds else new, earlier_add=add, earlier_remove=remove, mask=mask
        )
        if not adds and not mask.any():
            continue
        result = segmenters[which].prompt(image, prompts)
        mask = result.on(mask)
        add, remove = (add | new, remove & ~new) if adds else (add & ~new, remove | new)
        inside = np.zeros(shape, bool)
        inside[tuple(slice(*side) for side in result.box)] = True
        assert np.array_equal(mask[~inside], before[~inside])
        assert mask[add].all() and not mask[remove].any()


@QUICK
@given(cases())
def test_the_same_input_gives_the_same_bytes_whatever_came_before(segmenters, case):
    image, shape, rng, which = case
    prompts = Prompts(add=stroke(shape, rng), mask=rng.random(shape) > 0.5)
    first = segmenters[which].prompt(image, prompts)
    segmenters[which].prompt(image, Prompts(add=stroke(shape, rng)))
    fortran = Image(np.asfortranarray(image.array), image.ijk_to_ras)
    slicers = Prompts(add=np.asfortranarray(prompts.add), mask=np.asfortranarray(prompts.mask))
    for again in (segmenters[which].prompt(image, prompts), segmenters[which].prompt(fortran, slicers)):
        assert again.box == first.box and again.mask.tobytes() == first.mask.tobytes()


@QUICK
@given(cases())
def test_a_box_is_a_lasso_with_straight_sides(segmenters, case):
    image, shape, rng, which = case
    box, mask = random_box(shape, rng), rng.random(shape) > 0.9
    inside = np.zeros(shape, bool)
    inside[tuple(slice(*side) for side in box)] = True
    results = [
        segmenters[which].prompt(image, Prompts(mask=mask, **prompts))
        for prompts in ({"box": box}, {"region": inside}, {"box": box, "region": inside})
    ]
    assert all(result.box == results[0].box for result in results)
    assert all(np.array_equal(result.mask, results[0].mask) for result in results)


@QUICK
@given(cases())
def test_parts_of_the_grid_say_the_same_as_whole_arrays(segmenters, case):
    image, shape, rng, which = case
    arrays = {name: stroke(shape, rng) for name in ("add", "earlier_remove")}
    arrays["mask"], arrays["log_odds"] = stroke(shape, rng), rng.normal(0, 3, shape).astype(np.float32)
    parts = {}
    for name, array in arrays.items():
        low, high = np.argwhere(array).min(0), np.argwhere(array).max(0) + 1
        parts[name] = Placed(array[tuple(map(slice, low, high))], low, shape)
    low, high = np.argwhere(arrays["add"]).min(0), np.argwhere(arrays["add"]).max(0) + 1  # odds known there alone
    place = tuple(map(slice, low, high))
    parts["log_odds"] = Placed(arrays["log_odds"][place], low, shape, -6.0)
    arrays["log_odds"] = np.where(arrays["add"], arrays["log_odds"], np.float32(-6))
    whole, part = (segmenters[which].prompt(image, Prompts(**given)) for given in (arrays, parts))
    assert part.box == whole.box and np.array_equal(part.mask, whole.mask)


@pytest.mark.parametrize("spacing", [0.3, 0.7, 0.9, 1.2, 1.5, 2.7])
def test_the_last_digits_of_a_spacing_change_no_cube(spacing):
    """Formats and readers round differently; sides of a whole number and a half of voxels are frequent."""
    shape = (200, 180, 160)
    for halves in range(3, 160):
        around = ((90, 90 + halves // 2), (80, 83), (70, 71))
        seen = set()
        for factor in (1 - 1e-12, 1.0, 1 + 1e-12):
            steps = np.array([spacing, spacing * factor, 2 * spacing / factor])
            edge = halves / 2 * spacing * factor
            seen.add(
                (
                    cube(around, edge, steps, shape),
                    *tiles(((50, 50 + halves), (60, 60 + halves), (70, 73)), edge, steps, shape),
                )
            )
        assert len(seen) == 1, halves


@pytest.mark.parametrize("seed", range(20))
def test_what_is_computed_only_where_something_was_said_is_the_same_as_everywhere(seed):
    """Layers with few voxels against whole arrays, for patches that are coarser and finer and reach beyond the array."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 40, 3))
    add, remove = stroke(shape, rng), stroke(shape, rng)
    layers, whole = Layers(shape, (add, True), (remove, False)), add & ~remove
    for _ in range(5):
        low = [int(rng.integers(-9, n)) for n in shape]
        box = tuple((a, a + int(rng.integers(max(1, 1 - a), 50))) for a in low)
        size = tuple(int(n) for n in rng.integers(1, 20, 3))
        assert np.array_equal(cut(layers, box, size), cut(whole, box, size))
        assert np.array_equal(marked(layers, box, size), marked(whole, box, size))
        inner = tuple((int(rng.integers(n)), n) for n in shape)
        place = tuple(slice(*side) for side in inner)
        assert np.array_equal(layers.within(inner)[tuple(slice(0, n) for n in whole[place].shape)], whole[place])


@pytest.mark.parametrize("edge", [True, False])
def test_what_lies_beyond_the_image_is_its_edge_or_nothing(edge):
    """Patches against the image padded as a whole, which a cube around a thin image is never."""
    array = np.random.default_rng(0).normal(100, 30, (2, 25, 7, 1)).astype(np.float32)
    box, size = ((-10, 40), (3, 33), (0, 1)), (20, 16, 1)
    padded = np.pad(array[:, :, 3:], [(0, 0), (10, 15), (0, 26), (0, 0)], mode="edge" if edge else "constant")
    found = cut(array, box, size, edge)
    assert np.array_equal(found, resample(resample(padded, (20, 30, 1)), size))
    thin = np.ones((1, 1500, 3, 2), np.float32)
    assert cut(thin, ((0, 1500), (-700, 800), (-700, 800)), (16, 16, 16), edge=True) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("edge", [True, False])
@pytest.mark.parametrize(
    "box", [((-90, 110), (2, 9), (0, 3)), ((-300, 9), (0, 7), (0, 3)), ((4, 130), (-80, 120), (1, 3))]
)
def test_a_cube_that_reaches_far_beyond_the_image_shows_the_same_without_being_made(box, edge):
    array = np.random.default_rng(1).normal(100, 30, (2, 10, 7, 3)).astype(np.float32)
    known = [(max(0, low), min(n, high)) for (low, high), n in zip(box, array.shape[1:], strict=True)]
    missing = [(max(0, -low), max(0, high - n)) for (low, high), n in zip(box, array.shape[1:], strict=True)]
    part = array[(slice(None), *[slice(*side) for side in known])]
    padded = np.pad(part, [(0, 0), *missing], mode="edge" if edge else "constant")
    assert cut(array, box, (16, 12, 4), edge) == pytest.approx(resample(padded, (16, 12, 4)), abs=1e-3)


def test_a_long_stroke_in_a_needle_is_answered_without_its_cube(segmenters):
    """Made as a whole, the cube would have 15360 x 512 x 15360 voxels."""
    shape, spacing = (20, 512, 20), (0.1, 3.0, 0.1)
    add = np.zeros(shape, bool)
    add[10, 5:500, 10] = True
    values = np.random.default_rng(0).normal(0, 1, (1, *shape)).astype(np.float32)
    tracemalloc.start()
    result = segmenters[3, 3].prompt(Image(values, np.diag([*spacing, 1.0])), Prompts(add=add))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.on(np.zeros(shape, bool))[add].all() and most < 200e6
