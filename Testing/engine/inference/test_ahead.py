"""What a batch's reading process prepares: the run that begins with it gives what it gives by itself."""

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prosma import Image, Segmenter
from prosma.batch import image_reader_process
from prosma.batch.image_reader import ImageReader
from prosma.image.reading import read_image
from prosma.image.writing import nrrd_bytes
from prosma.inference import ahead
from prosma.inference.ahead import prepared_ahead
from prosma.inference.pipeline import prepare
from prosma.package import bundled_models_folder, resolve
from small_volumes import smooth_volume

MODELS = bundled_models_folder()


def facts(result):
    return result.labels.tobytes(), result.notices, result.fit, result.expected_dice, result.statistics


@pytest.fixture(scope="module")
def flagship():
    return Segmenter("hippocampus-mr", device="cpu")


@settings(max_examples=8, deadline=None)
@given(
    shape=st.tuples(*[st.integers(24, 52)] * 3),
    turned=st.permutations(range(3)),
    roi=st.sampled_from([None, ((2, 22), (1, 24), (0, 20))]),
)
def test_the_run_gives_what_it_gives_by_itself(flagship, shape, turned, roi):
    matrix = np.eye(4)[[*turned, 3]]
    image = smooth_volume(shape, matrix=matrix)
    begun = prepared_ahead(image, MODELS / "hippocampus-mr", roi, force=True)
    assert begun is not None and begun.image_features is not None
    alone, after = (flagship.segment(image, roi=roi, force=True, prepared=each) for each in (None, begun))
    assert facts(alone) == facts(after)


@pytest.mark.parametrize("name", ["breast-lesion-us", "polyp-colonoscopy"])
def test_pictures_too(name):
    segmenter = Segmenter(name, device="cpu")
    picture = np.random.default_rng(1).integers(0, 255, (len(segmenter.package.channels), 90, 70, 1)).astype(np.uint8)
    image = Image(picture, np.eye(4))
    begun = prepared_ahead(image, MODELS / name, force=True)
    alone, after = (segmenter.segment(image, force=True, prepared=each) for each in (None, begun))
    assert facts(alone) == facts(after) and alone.presence == after.presence


def test_the_fit_is_not_measured_again(flagship, monkeypatch):
    image = smooth_volume((40, 48, 36))
    begun = prepared_ahead(image, MODELS / "hippocampus-mr", force=True)
    monkeypatch.setattr("prosma.inference.segmenter.prepare", None)
    monkeypatch.setattr("prosma.inference.encoder_features.image_features", None)
    assert flagship.segment(image, force=True, prepared=begun).fit.verdict != "unknown"


def test_where_the_run_has_to_begin_by_itself(monkeypatch):
    """With a whole head, which the finder looks at first; with what cannot be segmented; with a large image."""
    model = MODELS / "hippocampus-mr"
    assert prepared_ahead(Image(np.zeros((1, 160, 160, 160), np.uint8), np.eye(4)), model) is None
    assert prepared_ahead(Image(np.zeros((1, 40, 40, 1), np.uint8), np.eye(4)), model, force=True) is None
    image = smooth_volume((40, 48, 36))
    assert prepared_ahead(image, model, force=True) is not None
    monkeypatch.setattr(ahead, "MOST", 6 * image.array.nbytes)  # float32 instead of int16, and 2.2 times the voxels
    assert prepared_ahead(image, model, force=True) is not None
    monkeypatch.setattr(ahead, "MOST", 2 * image.array.nbytes)  # larger on the model's grid
    assert prepared_ahead(image, model, force=True) is None
    finer = image.array.repeat(6, 3)
    monkeypatch.setattr(ahead, "MOST", finer.nbytes - 1)  # larger as it is
    matrix = image.ijk_to_ras @ np.diag([1.0, 1.0, 1 / 6, 1.0])
    assert prepared_ahead(Image(finer, matrix), model, force=True) is None


def test_a_package_that_knows_no_fit_is_prepared_for_as_well(tiny):
    image = smooth_volume((20, 20, 20))
    begun = prepared_ahead(image, tiny.folder)
    assert begun is not None and begun.image_features is None


def test_the_reading_process_sends_image_and_beginning(tmp_path):
    image = smooth_volume((40, 48, 36))
    (tmp_path / "a.nrrd").write_bytes(nrrd_bytes((image.array[0] * 50 + 100).astype(np.uint16), image, {}))
    reader = ImageReader()
    try:
        run = {"model": str(MODELS / "hippocampus-mr"), "roi": None, "force": True}
        image, begun = reader.read_ahead([tmp_path / "a.nrrd"], run=run)
        assert reader.read_ahead([tmp_path / "a.nrrd"])[1] is None  # asked for no run
    finally:
        reader.close()
    np.testing.assert_array_equal(image.array, read_image(tmp_path / "a.nrrd").array)
    expected = prepare(image, resolve("hippocampus-mr"), force=True)
    np.testing.assert_array_equal(begun.array, expected.array)
    for field in dataclasses.fields(expected):
        if field.name not in ("array", "image_features"):
            assert getattr(begun, field.name) == getattr(expected, field.name)


@pytest.mark.parametrize("fault", [MemoryError, OSError, ZeroDivisionError])
def test_a_beginning_that_fails_costs_no_case(tiny, tmp_path, monkeypatch, fault):
    """The image arrives alone, no file is left behind, and the run meets the fault itself."""

    def fails(*_arguments, **_options):
        raise fault

    image = smooth_volume((20, 20, 20))
    (tmp_path / "a.nrrd").write_bytes(nrrd_bytes((image.array[0] * 50 + 100).astype(np.uint16), image, {}))
    monkeypatch.setattr(ahead, "prepared_ahead", fails)
    with tempfile.TemporaryDirectory() as folder:
        request = {"images": [str(tmp_path / "a.nrrd")], "series": None, "run": {"model": str(tiny.folder)}}
        found = image_reader_process.answer(request, Path(folder, "0.npy"))
        assert set(found) == {"image"}
        assert [file.name for file in Path(folder).iterdir()] == ["0.npy"]
