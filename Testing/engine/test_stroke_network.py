"""The networks of Refine in their data file: which features they were fitted to, and what they compute."""

import re

import numpy as np
import pytest

from prosma.correct.stroke_network import FEATURES, FILE, load_networks, logits, save_networks


@pytest.fixture
def stored():
    with np.load(FILE) as arrays:
        return dict(arrays)


def written(path, arrays):
    np.savez(path, **arrays)
    return path


def test_the_file_says_what_when_and_by_which_code_it_was_fitted(stored):
    assert tuple(stored["features"]) == FEATURES["network"] == (*FEATURES["image"], *FEATURES["network"][22:])
    assert len(set(FEATURES["network"])) == 27 and len(FEATURES["image"]) == 22
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", str(stored["fitted"]))
    assert re.fullmatch(r"[0-9a-f]{7,40}", str(stored["commit"]))


def test_each_source_and_dimension_has_a_network_of_float32():
    for (source, _), layers in load_networks().items():
        assert [matrix.shape for matrix, _ in layers] == [(len(FEATURES[source]), 32), (32, 32), (32, 1)]
        assert {array.dtype for layer in layers for array in layer} == {np.dtype(np.float32)}
    assert set(load_networks()) == {(source, n) for source in ("image", "network") for n in (2, 3)}


def test_features_in_another_order_are_refused(tmp_path, stored):
    names = stored["features"].copy()
    names[[0, 1]] = names[[1, 0]]
    with pytest.raises(RuntimeError, match=r"features travelled, distance, .*fit_refine\.py"):
        load_networks(written(tmp_path / "a.npz", {**stored, "features": names}))
    with pytest.raises(RuntimeError, match=r"features distance, .*, offset_next_to, but"):
        load_networks(written(tmp_path / "b.npz", {**stored, "features": stored["features"][:-1]}))


def test_a_network_of_other_inputs_or_none_is_refused(tmp_path, stored):
    with pytest.raises(RuntimeError, match="no network for image 2 with 22 inputs"):
        load_networks(written(tmp_path / "a.npz", {**stored, "image_2_matrix_0": stored["network_2_matrix_0"]}))
    without = {name: array for name, array in stored.items() if not name.startswith("network_3")}
    with pytest.raises(RuntimeError, match="no network for network 3 with 27 inputs"):
        load_networks(written(tmp_path / "b.npz", without))


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "refine.npz"
    save_networks(load_networks(), "2026-01-02", "abcdef0", path)
    for key, layers in load_networks(path).items():
        for (matrix, shift), (other, another) in zip(layers, load_networks()[key], strict=True):
            np.testing.assert_array_equal(matrix, other)
            np.testing.assert_array_equal(shift, another)
    with np.load(path) as arrays:
        assert (str(arrays["fitted"]), str(arrays["commit"])) == ("2026-01-02", "abcdef0")
    assert path.stat().st_size < 40_000


def test_logits_are_linear_layers_with_relu_between_them():
    layers = [
        (np.array([[1, -2], [3, 0.5]], np.float32), np.array([0.5, -1], np.float32)),
        (np.array([[2], [4]], np.float32), np.array([-3], np.float32)),
    ]
    # (1, 1): hidden 1 + 3 + 0.5 = 4.5 and -2 + 0.5 - 1 = -2.5, which becomes 0; 2 * 4.5 - 3 = 6
    # (-1, 2): hidden -1 + 6 + 0.5 = 5.5 and 2 + 1 - 1 = 2; 2 * 5.5 + 4 * 2 - 3 = 16
    # (0, -1): hidden -2.5 and -1.5, both 0; -3, which stays negative
    found = logits(np.array([[1, 1], [-1, 2], [0, -1]], np.float32), layers)
    np.testing.assert_array_equal(found, [6, 16, -3])
