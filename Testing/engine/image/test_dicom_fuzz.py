"""Damaged DICOM headers: an image, or one sentence; never another error, never a hang. Seeded, so that it is the same."""

import random
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_writing import enhanced, noise, write, write_series
from pydicom.data import get_testdata_file

from prosma.errors import UserFacingError
from prosma.image.reading import read_image

OF_PYDICOM = ["CT_small.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm"]
OF_PYDICOM += ["SC_rgb_jpeg_dcmtk.dcm", "rtdose.dcm", "examples_ybr_color.dcm", "liver_1frame.dcm", "rtstruct.dcm"]
LONGEST_S = 300  # a hang; the slowest takes a few seconds alone


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, left out or put in, mostly in the header; sometimes the end is missing."""
    broken = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        place = chance.randrange(132, min(len(broken), chance.choice([400, 800, 1600, len(data)])))
        how = chance.randrange(4)
        if how == 0:
            broken[place] = chance.randrange(256)
        elif how == 1:
            broken[place] ^= 1 << chance.randrange(8)
        elif how == 2:
            del broken[place : place + chance.randrange(1, 9)]
        else:
            broken[place:place] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 5)))
    return bytes(broken[: chance.randrange(140, len(broken))] if chance.random() < 0.1 else broken)


@pytest.mark.parametrize(("seed", "count"), [(0, 24), pytest.param(1, 1000, marks=pytest.mark.slow, id="a thousand")])
def test_damaged_headers_are_read_or_refused_in_a_sentence(tmp_path, seed, count):
    chance, outcomes = random.Random(seed), {"read": 0, "refused": 0}
    series = write_series(tmp_path / "series", noise((4, 8, 9)), RescaleSlope="1.5", RescaleIntercept="2", EchoTime=3)
    frames = enhanced(noise((5, 8, 9)).astype(np.uint16), 2.5 * np.arange(5), slopes=[1, 2, 3, 4, 5])
    originals = [series, [write(tmp_path / "frames.dcm", frames)]]
    originals += [[Path(get_testdata_file(name))] for name in OF_PYDICOM]
    for number in range(count):
        files = originals[number % len(originals)]
        folder = tmp_path / str(number)
        folder.mkdir()
        victim = chance.randrange(len(files))
        for n, file in enumerate(files):
            data = file.read_bytes()
            (folder / f"{n}.dcm").write_bytes(damaged(data, chance) if n == victim else data)
        began = time.monotonic()
        try:
            read_image(folder if len(files) > 1 or chance.random() < 0.5 else folder / "0.dcm")
            outcomes["read"] += 1
        except UserFacingError as error:
            outcomes["refused"] += 1
            assert error.message.endswith(".")
            assert error.remedy.endswith(".")
        assert time.monotonic() - began < LONGEST_S
    assert min(outcomes.values()) > count // 20, "neither all is read nor all refused"
