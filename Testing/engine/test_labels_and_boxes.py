"""Boxes of voxels, and the texts by which an edited segment is recognised, each against a plain look at every voxel."""

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.image import box
from prosma.image.labels import Fingerprints, fingerprints, same_fingerprint
from prosma.image.tags import EMPTY

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


# --- fingerprints


def plain_fingerprint(labels, value, matrix):
    """The definition, voxel by voxel: runs along the rows of (K, J, I), seen from the first voxel, and its place."""
    runs = []
    for k, j in np.ndindex(labels.shape[2], labels.shape[1]):
        length = 0
        for i in range(labels.shape[0] + 1):
            if i < labels.shape[0] and labels[i, j, k] == value:
                length += 1
            elif length:
                runs.append((k, j, i - length, length))
                length = 0
    if not runs:
        return EMPTY
    k, j, i, _ = runs[0]
    seen = [(run[0] - k, run[1] - j, run[2] - i, run[3]) for run in runs]
    digest = hashlib.blake2b(np.array(seen, "<i4").tobytes(), digest_size=16).hexdigest()
    place = [sum(matrix[row][n] * index for n, index in enumerate((i, j, k, 1))) for row in range(3)]
    return f"{digest}@" + ",".join(f"{mm:.4f}" for mm in place)


@given(st.integers(0, 10**6), st.tuples(*3 * [st.integers(1, 7)]), st.sampled_from(["uint8", "uint16"]))
def test_fingerprints_are_what_their_docstring_says(seed, shape, kind):
    random = np.random.default_rng(seed)
    labels = random.choice([0, 1, 2, 7], shape, p=[0.4, 0.3, 0.2, 0.1]).astype(kind)
    matrix = np.eye(4)
    matrix[:3] = random.integers(-8, 9, (3, 4)) / 4
    found = fingerprints(labels, matrix)
    assert set(found) == set(np.unique(labels).tolist()) - {0}
    for value in (1, 2, 3, 7):
        assert found.get(value, EMPTY) == plain_fingerprint(labels, value, matrix)


@given(st.integers(0, 10**6), st.integers(1, 6))
def test_a_fingerprint_depends_neither_on_slabs_nor_on_how_voxels_are_stored(seed, step):
    labels = np.random.default_rng(seed).integers(0, 3, (5, 6, 9)).astype(np.uint8)
    whole, found = fingerprints(labels, np.eye(4)), Fingerprints()
    for start in range(0, 9, step):
        found.add(labels.T[start : start + step])
    assert found.texts(np.eye(4)) == whole
    stored = np.zeros((9, 10, 12), np.uint16)  # wider, with more around, and cut out again elsewhere
    stored[2:7, 3:9, 1:10] = np.where(labels == 1, 300, 0)
    other = Fingerprints()
    other.add(stored.T)
    assert other.texts(np.eye(4), start=(-2, -3, -1)).get(300) == whole.get(1)


def test_one_voxel_more_or_elsewhere_is_another_fingerprint():
    labels = np.zeros((6, 6, 6), np.uint8)
    labels[2:4, 2:4, 2:4] = 1
    text = fingerprints(labels, np.eye(4))[1]
    for index in ((4, 2, 2), (2, 4, 3), (5, 5, 5)):
        other = labels.copy()
        other[index] = 1
        assert not same_fingerprint(text, fingerprints(other, np.eye(4))[1])
    moved = np.eye(4)
    moved[0, 3] = 0.03
    assert not same_fingerprint(text, fingerprints(labels, moved)[1])
    moved[0, 3] = 0.01  # file formats round the geometry
    assert same_fingerprint(text, fingerprints(labels, moved)[1])
    assert same_fingerprint(EMPTY, EMPTY)
    assert not same_fingerprint(text, EMPTY)


@pytest.mark.parametrize("text", ["", "edited"])
def test_a_text_that_is_no_fingerprint_matches_none(text):
    assert not same_fingerprint(fingerprints(np.ones((1, 1, 1), np.uint8), np.eye(4))[1], text)
