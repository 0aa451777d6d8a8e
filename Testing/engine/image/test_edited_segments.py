"""The texts by which an edited segment is recognised, against a plain look at every voxel."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prosma.image.edited_segments import Fingerprints, same_fingerprint
from prosma.image.labels import LabelFacts
from prosma.image.tags import EMPTY


def fingerprints(labels, matrix):
    """Those that a file with the label map would get."""
    return LabelFacts.of(labels, matrix, [{"value": 1}]).fingerprints


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
