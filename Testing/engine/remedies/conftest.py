"""Folders of labelled images, for tests of what is refused in them."""

import numpy as np
import PIL.Image
import pytest

from labelled_folders import NAMES, describe, images_of, labelled


@pytest.fixture
def folder(tmp_path):
    images_of(tmp_path / "data")
    describe(tmp_path / "data", labels=NAMES)
    return tmp_path / "data"


@pytest.fixture
def pictures(tmp_path):
    """Pictures with masks of 0 and 255."""
    for part in ("images", "masks"):
        (tmp_path / "pictures" / part).mkdir(parents=True)
    for number in range(3):
        labels, image = labelled(number)
        PIL.Image.fromarray(image[..., 4].clip(0, 255).astype(np.uint8)).save(
            tmp_path / f"pictures/images/{number}.png"
        )
        PIL.Image.fromarray((labels[..., 4] > 0).astype(np.uint8) * 255).save(tmp_path / f"pictures/masks/{number}.png")
    return tmp_path / "pictures"
