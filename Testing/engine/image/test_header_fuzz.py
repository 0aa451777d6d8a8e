"""Damaged headers end in a result, a notice or a sentence: never in an exception, a hang or the end of a batch."""

import nibabel as nib
import numpy as np
import pytest

from header_fuzz import FORMATS, counts, damaged, original, outcomes
from prosma.image.reading import read_image


def check(results):
    faults = [result for result in results if result["what"] not in ("read", "refused", "died")]
    bad = [(result["kind"], result["number"], result["text"][:200]) for result in faults]
    assert not bad
    table = counts(results)
    assert set(table) == set(FORMATS)
    assert all(any(what.startswith("refused") for what in found) for found in table.values())
    for result in results:
        if result["what"] == "died":  # of the image library: a named failure, and the next case was done
            assert result["path"].name in result["text"]


def test_eighty_damaged_headers(tmp_path):
    results = outcomes(80, tmp_path, seed=7)
    check(results)
    assert len(results) == 80 and any(result["what"] == "read" for result in results)


@pytest.mark.slow
def test_a_thousand_damaged_headers(tmp_path):
    results = outcomes(1040, tmp_path)
    check(results)
    assert sum(result["what"] == "died" for result in results) == 0


@pytest.mark.parametrize("kind", ["nii", "nii.gz"])
def test_what_is_read_without_a_word_is_what_nibabel_reads(tmp_path, kind):
    """Of damaged NIfTI headers those that both read: the same values at the same places, or a notice."""
    source, compared = original(tmp_path, kind), 0
    for seed in range(150):
        path = damaged(source, tmp_path / f"{seed}.{kind}", kind, seed)
        try:
            image, judge = read_image(path), nib.load(path)
            values, matrix = np.asarray(judge.dataobj), judge.affine
        except Exception:
            continue
        if image.notices or values.dtype.names:
            continue
        found = image.array[0] if len(image.array) == 1 else image.array.transpose(1, 2, 3, 0)
        np.testing.assert_allclose(found.reshape(-1), values.reshape(-1), rtol=1e-6)
        np.testing.assert_allclose(image.ijk_to_ras, matrix, rtol=1e-5, atol=1e-4)
        compared += 1
    assert compared > 50
