"""The worker answers strokes: a real child process, arrays as files, the same bytes as from Python."""

import numpy as np
import pytest
from test_worker import Engine, job_files

from prosma import Image, Prompts, Segmenter
from tiny_model import make_tiny_promptable

SHAPE = (40, 36, 30)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    return make_tiny_promptable(tmp_path_factory.mktemp("prompt") / "package")


@pytest.fixture(scope="module")
def engine():
    engine = Engine()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def image():
    values = np.random.default_rng(0).normal(100, 20, (1, *SHAPE)).astype(np.float32)
    return Image(values, np.diag([1.0, 1.0, 1.5, 1.0]))


def part(folder, name, array):
    """A part of the grid around the True voxels of an array (I, J, K), as files of the worker are."""
    low = [int(n.min()) for n in np.nonzero(array)]
    high = [int(n.max()) + 1 for n in np.nonzero(array)]
    cropped = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
    np.save(folder / f"{name}.npy", np.ascontiguousarray(cropped.T.astype(np.uint8)))
    return {"file": f"{name}.npy", "offset": low}


def ask(engine, job, package, files, **request):
    engine.send(id=job, do="prompt", model=str(package.folder), device="cpu", **files, **request)


def test_strokes_give_the_same_bytes_as_from_python_one_after_the_other(engine, package, image, tmp_path):
    segmenter = Segmenter(package, "cpu")
    files = job_files(tmp_path, image)
    first, second = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    first[18:26, 16, 14], second[20:22, 20:24, 14] = True, True
    ask(engine, "one", package, files, add=part(tmp_path, "add", first), number=1)
    event, _ = engine.answer("one")
    assert event["event"] == "result", event
    expected = segmenter.prompt(image, Prompts(add=first))
    found = np.load(tmp_path / event["mask"]["file"]).T
    assert event["mask"]["offset"] == [low for low, _ in expected.box] and np.array_equal(found, expected.mask)
    mask = expected.on(np.zeros(SHAPE, bool))
    later = {"mask": part(tmp_path, "mask", mask), "earlier_add": part(tmp_path, "earlier", first), "number": 2}
    ask(engine, "two", package, files, remove=part(tmp_path, "remove", second), **later)
    event, _ = engine.answer("two")
    expected = segmenter.prompt(image, Prompts(remove=second, earlier_add=first, mask=mask))
    found = np.load(tmp_path / event["mask"]["file"]).T
    assert event["mask"]["file"] == "prompted_2.npy" and np.array_equal(found, expected.mask)
    ask(engine, "box", package, files, box=[[10, 30], [10, 30], [5, 25]], number=3)
    event, _ = engine.answer("box")
    boxed = segmenter.prompt(image, Prompts(box=((10, 30), (10, 30), (5, 25))))
    assert np.array_equal(np.load(tmp_path / event["mask"]["file"]).T, boxed.mask)


def test_another_image_in_the_same_files_is_seen(engine, package, image, tmp_path):
    files = job_files(tmp_path, image)
    add = np.zeros(SHAPE, bool)
    add[18:26, 16, 14] = True
    ask(engine, "before", package, files, add=part(tmp_path, "add", add))
    before, _ = engine.answer("before")
    other = Image(image.array[:, ::-1] * 2, image.ijk_to_ras)
    (tmp_path / "channel0.npy").unlink()
    files = job_files(tmp_path, other)
    ask(engine, "after", package, files, add=part(tmp_path, "add", add), number=1)
    after, _ = engine.answer("after")
    expected = Segmenter(package, "cpu").prompt(other, Prompts(add=add))
    assert before["event"] == "result"
    assert np.array_equal(np.load(tmp_path / after["mask"]["file"]).T, expected.mask)


def test_the_next_stroke_cancels_those_that_wait(engine, package, image, tmp_path):
    files = job_files(tmp_path, image)
    add = np.zeros(SHAPE, bool)
    add[18:26, 16, 14] = True
    stroke = part(tmp_path, "add", add)
    for number in range(6):
        ask(engine, number, package, files, add=stroke, number=number)
    answers = {}
    while len(answers) < 6:
        event = engine.event()
        answers[event["id"]] = event
    assert answers[5]["event"] == "result"
    assert {event["code"] for event in answers.values() if event["event"] == "error"} == {"cancelled"}


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({}, "Nothing says"),
        ({"add": {"file": "absent.npy", "offset": [0, 0, 0]}}, "not an array that can be read"),
        ({"add": {"file": "far.npy", "offset": [39, 0, 0]}}, "reaches beyond the image"),
        ({"add": {"file": "../far.npy", "offset": [0, 0, 0]}}, "the name of a file"),
        ({"stroke": 1}, "stroke"),
    ],
)
def test_requests_that_make_no_sense_are_refused(engine, package, image, tmp_path, request_, words):
    files = job_files(tmp_path, image)
    np.save(tmp_path / "far.npy", np.ones((2, 2, 2), np.uint8))
    ask(engine, "bad", package, files, **request_)
    event, _ = engine.answer("bad")
    assert event["event"] == "error" and words in event["message"]
