"""Boxes of voxels, against a plain look at every voxel."""

import itertools
import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from prosma.image import box

PAIR = st.tuples(st.integers(0, 6), st.integers(1, 5)).map(lambda pair: (pair[0], pair[0] + pair[1]))
BOX = st.tuples(PAIR, PAIR, PAIR)
SHAPE = (12, 12, 12)


def voxels(of):
    """All indices in a box, as a set."""
    return set(itertools.product(*(range(low, high) for low, high in of))) if of is not None else set()


@given(BOX, BOX)
def test_what_boxes_have_in_common_and_what_is_around_them(one, other):
    assert voxels(box.overlap(one, other)) == voxels(one) & voxels(other)
    around = box.union([one, None, other])
    both = np.array(sorted(voxels(one) | voxels(other)))
    assert around == tuple(zip(both.min(axis=0).tolist(), (both.max(axis=0) + 1).tolist(), strict=True))
    assert box.union([None]) is None


@given(BOX, st.tuples(*3 * [st.integers(0, 4)]))
def test_a_box_that_is_moved_grown_or_used_as_an_index(one, steps):
    assert voxels(box.moved(one, steps)) == {tuple(np.add(index, steps).tolist()) for index in voxels(one)}
    grown = voxels(box.grown(one, steps, SHAPE))
    near = {
        index
        for index in voxels(box.whole(SHAPE))
        if all(low - m <= n < high + m for n, (low, high), m in zip(index, one, steps, strict=True))
    }
    assert grown == near
    mask = np.zeros(SHAPE, bool)
    mask[box.slices(one)] = True
    assert voxels(one) == set(map(tuple, np.argwhere(mask).tolist()))
    assert box.smallest(mask) == one
    assert mask[box.slices(one)].shape == box.shape_of(one)
    from_slicer = np.zeros(SHAPE, bool).T  # (K, J, I), and the box along I, J, K
    from_slicer[box.slices_kji(one)] = True
    assert np.array_equal(from_slicer.T, mask)
    part = mask[box.slices(grown_box := box.grown(one, steps, SHAPE))]
    assert part[box.slices(one, box.start_of(grown_box))].all()


def test_nothing_has_no_box():
    assert box.smallest(np.zeros((3, 4, 5), bool)) is None
    assert box.span(np.zeros(4, bool)) is None
    assert box.span(np.array([False, True, False, True, False])) == (1, 4)


def test_boxes_and_tags_import_without_numpy():
    code = (
        "import sys; sys.modules['numpy'] = None; import prosma.image.box, prosma.image.tags, prosma.image.constants; "
        "print(prosma.image.box.overlap([(0, 3)], [(1, 9)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "((1, 3),)"
