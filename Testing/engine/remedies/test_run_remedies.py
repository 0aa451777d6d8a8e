"""Runs that are refused, and what the refusals say is to be done (inference, correct, door)."""

import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from prosma import Image, Prompts, Segmenter, read_image
from prosma.correct.refine import refine
from prosma.door.job_files import Job
from prosma.door.requests import Cases
from prosma.door.worker import error_event
from prosma.errors import explained
from prosma.inference import devices, memory_ladder, pipeline
from prosma.inference.prompts import check_model
from prosma.inference.segmenter import Segmenter as PlainSegmenter
from remedies import refused
from small_volumes import smooth_shades, smooth_volume
from tiny_model import make_tiny_package


@pytest.fixture(scope="module")
def segmenter(tiny):
    return Segmenter(tiny, "cpu")


@pytest.fixture(scope="module")
def strokes(tmp_path_factory):
    """A model that answers strokes, with random weights."""
    channels = ["likeness", "mask", "belongs", "does not belong", "region", "log odds"]
    network = {"spatial_dims": 3, "in_channels": 7, "out_channels": 2, "features": [4, 8]}
    folder = tmp_path_factory.mktemp("models") / "strokes"
    return Segmenter(
        make_tiny_package(
            folder, labels=1, network=network, prompt={"channels": channels}, spacing=None, patch_size=[16, 16, 16]
        ),
        "cpu",
    )


@pytest.fixture
def small():
    return smooth_volume((16, 16, 16))


def test_regions_are_given_as_it_is_said(segmenter, small):
    refused(
        "inference/pipeline.py: The ROI is not three pairs",
        "Give it as i0 i1 j0 j1 k0 k1",
        segmenter.segment,
        small,
        roi=[1, 2],
    )
    refused(
        "inference/pipeline.py: The ROI does not touch the volume",
        "Move it over the volume or do without",
        segmenter.segment,
        small,
        roi=[[20, 30]] * 3,
    )
    assert segmenter.segment(small, roi=[[2, 14]] * 3).labels.shape == small.shape
    assert segmenter.segment(small).labels.any()


def test_volumes_and_channels_are_those_of_the_model(segmenter, small, tiny_flat, tmp_path):
    one = replace(small, array=small.array[..., :1])
    refused(
        "inference/pipeline.py: but this is a single slice", "Choose a volume or a 2D model", segmenter.segment, one
    )
    assert segmenter.segment(small).labels.any()
    flat = Segmenter(tiny_flat, "cpu")
    assert flat.segment(smooth_shades((32, 24, 1), 3)).labels.shape == (32, 24, 1)
    two = replace(small, array=np.repeat(small.array, 2, axis=0))
    refused("inference/pipeline.py: (...), the image has", "Choose the channel to use", segmenter.segment, two)
    assert segmenter.segment(replace(two, array=two.array[1:])).labels.any()
    both = Segmenter(make_tiny_package(tmp_path / "both", channels=2, spacing=None, patch_size=[16, 16, 16]), "cpu")
    refused(
        "inference/pipeline.py: (...), the image has",
        "Give one image for each channel, in this order",
        both.segment,
        small,
    )
    assert both.segment(two).labels.shape == small.shape


def test_values_outside_of_black_and_white_are_scaled(tmp_path):
    rule = {"rule": "range", "low": 0, "high": 255}
    package = make_tiny_package(tmp_path / "model", dimension=2, intensity=rule, modality="photograph")
    values = np.random.default_rng(0).normal(0, 100, (64, 64)).astype(np.float32)
    PIL.Image.fromarray(values).save(tmp_path / "a.tif")
    runs = Segmenter(package, "cpu").segment
    refused(
        "image/intensity.py: The image's values go from",
        "Scale them to 0 to 255 and save them so",
        runs,
        read_image(tmp_path / "a.tif"),
    )
    scaled = (values - values.min()) / np.ptp(values) * 255
    PIL.Image.fromarray(scaled.astype(np.uint8)).save(tmp_path / "a.png")
    assert runs(read_image(tmp_path / "a.png")).labels.shape == (64, 64, 1)


def test_options_are_chosen_among_those_told(segmenter, small):
    refused(
        "inference/options.py: The overlap of tiles is a share", "from 0 to 0.9", segmenter.segment, small, overlap=2
    )
    error = refused(
        "inference/options.py: There is no output", "Choose among", segmenter.segment, small, outputs=["heat"]
    )
    names = error.remedy.removeprefix("Choose among ").rstrip(".").split(", ")
    found = segmenter.segment(small, overlap=0.5, outputs=names)
    assert all(getattr(found, name) is not None for name in names)


def test_devices(tiny, small, monkeypatch):
    error = refused("inference/devices.py: There is no device", "Choose auto, cpu or cuda", Segmenter, tiny, "gpu")
    assert Segmenter(tiny, "cpu").segment(small).labels.any() and "cpu" in error.remedy
    monkeypatch.setitem(sys.modules, "torch", None)
    refused(
        "inference/devices.py: PyTorch ... in",
        "Install it: in Slicer through the PyTorch extension",
        devices.import_torch,
    )
    monkeypatch.undo()
    assert devices.import_torch().__name__ == "torch"


def test_a_card_that_cannot_be_used_is_left_for_the_cpu(small, tiny, tmp_path, monkeypatch):
    from prosma.batch.loop import CaseWorker, Settings
    from prosma.cli.common import insist_on_device

    monkeypatch.setattr(devices, "cuda_problem", lambda index=0: "there is none")
    refused("cli/common.py: CUDA cannot be used", "Say --device auto or --device cpu", insist_on_device, "cuda")
    insist_on_device("auto"), insist_on_device("cpu")
    settings = Settings(folder=str(tmp_path), model=str(tiny.folder), device="cuda", run={})
    with CaseWorker(settings, tiny) as worker:
        refused(
            "batch/loop.py: Say --device auto or --device cpu",
            "Say --device auto or --device cpu",
            lambda: worker.segmenter,
        )
    with CaseWorker(replace(settings, device="auto"), tiny) as worker:
        assert worker.segmenter.segment(small).labels.any()


# --- memory: an ROI needs less


def test_too_little_memory_is_answered_by_an_roi(segmenter, tmp_path, monkeypatch):
    fine = Segmenter(make_tiny_package(tmp_path / "fine", spacing=[1.0, 1.0, 1.0], patch_size=[16, 16, 16]), "cpu")
    large = Image(smooth_volume((40, 40, 40)).array, np.eye(4))
    monkeypatch.setattr(pipeline, "physical_memory", lambda: 9 * 40**3)
    refused(
        "inference/pipeline.py: On the model's grid the volume has", "Limit the work to an ROI", fine.segment, large
    )
    assert fine.segment(large, roi=[[0, 20]] * 3).labels.any()
    monkeypatch.undo()

    def too_much(shape):
        def attempt(_effort):
            if np.prod(shape) > 20**3:
                raise MemoryError
            return shape

        return attempt

    name = "inference/memory_ladder.py: The computer's memory did not suffice for this volume"
    step = memory_ladder.with_fallbacks
    refused(name, "Limit the work to an ROI", step, too_much((40, 40, 40)), None, lambda effort: None, lambda *_: None)
    assert step(too_much((20, 20, 20)), None, lambda effort: None, lambda *_: None) == (20, 20, 20)


def test_a_model_that_does_not_load_has_room_once_others_are_closed(tiny, monkeypatch):
    def full(*_):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr("prosma.package.weights.load_networks", full)
        refused(
            "inference/segmenter.py: did not suffice to load the model",
            "Close other programs",
            PlainSegmenter,
            tiny,
            "cpu",
        )
    assert PlainSegmenter(tiny, "cpu").classes == 3


# --- strokes


def test_strokes_and_models_belong_together(segmenter, strokes, small):
    stroke = np.zeros(small.shape, bool)
    stroke[7:9, 7:9, 8] = True
    refused(
        "inference/prompts.py: and answers no strokes",
        "Choose a model for strokes",
        segmenter.prompt,
        small,
        Prompts(add=stroke),
    )
    refused(
        "inference/segmenter.py: has no structures of its own", "or give strokes: prosma prompt", strokes.segment, small
    )
    one = replace(small, array=small.array[..., :1])
    refused(
        "inference/prompts.py: The image is ...; the model",
        "Choose a model for strokes in pictures",
        check_model,
        strokes,
        one,
    )
    assert strokes.prompt(small, Prompts(add=stroke)).on(np.zeros(small.shape, bool))[stroke].all()
    assert segmenter.segment(small).labels.any()


def test_something_is_said_on_the_images_grid(strokes, small):
    stroke, mask = np.zeros(small.shape, bool), np.zeros(small.shape, bool)
    stroke[7:9, 7:9, 8], mask[4:12, 4:12, 4:12] = True, True
    say = strokes.prompt
    refused(
        "inference/prompts.py: Give it on the image's grid",
        "Give it on the image's grid",
        say,
        small,
        Prompts(add=stroke[:8]),
    )
    refused(
        "inference/prompts.py: Say it with one at least", "Say it with one at least", say, small, Prompts(mask=mask)
    )
    name = "inference/prompts.py: There are only earlier strokes"
    refused(name, "Give the newest one to add or to remove", say, small, Prompts(earlier_add=stroke))
    assert say(small, Prompts(earlier_add=mask, add=stroke)).on(mask)[stroke | mask].all()
    assert not say(small, Prompts(earlier_add=mask, remove=stroke)).on(np.zeros(small.shape, bool))[stroke].any()
    name = "inference/prompts.py: There are only strokes that take away"
    refused(name, "Give a mask, or a stroke", say, small, Prompts(remove=stroke))
    name = "inference/prompts.py: is empty or reaches beyond the image"
    refused(
        name, "a first voxel and the voxel after the last one", say, small, Prompts(box=[[4, 12], [4, 12], [4, 99]])
    )
    for prompts in (Prompts(add=stroke), Prompts(remove=stroke, mask=mask), Prompts(box=[[4, 12]] * 3)):
        assert say(small, prompts).mask is not None


REFINED = {
    "correct/refine.py: There is no stroke": {"strokes_add": None},
    "correct/refine.py: The radius is a positive number": {"radius_mm": 0},
    "correct/refine.py: it has to have three, K, J and I": {"mask": np.zeros((5, 6), bool)},
    "correct/refine.py: The image ... and the mask": {"image": np.zeros((4, 5, 5))},
    "correct/refine.py: ... ... and the mask": {"strokes_add": np.ones((4, 5, 7), bool)},
    "correct/refine.py: The spacing is three positive numbers": {"spacing": (1, 0, 1)},
}


@pytest.mark.parametrize("name", REFINED)
def test_what_refine_is_given_is_as_it_says(name):
    right = {"mask": np.zeros((4, 5, 6), bool), "image": np.zeros((4, 5, 6)), "strokes_add": np.ones((4, 5, 6), bool)}
    right |= {"strokes_remove": None, "spacing": (1, 1, 1), "radius_mm": 2.0}
    refused(name, "", refine, **{**right, **REFINED[name]})
    assert refine(**right).on(right["mask"]).all()


# --- what the panel asks for, and errors of the system


def test_a_folder_of_cases_that_is_none(tmp_path):
    wanted = {"images": str(tmp_path / "none"), "output": str(tmp_path / "out"), "format": ".nrrd", "channels": 1}
    request = Cases(id=1, do="cases", **wanted)
    refused("door/job_files.py: There is no folder", "Check its name", Job.list_cases, request)
    (tmp_path / "none").mkdir()
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "none" / "a.png")
    assert [case["name"] for case in Job.list_cases(request)] == ["a"]


def test_a_folder_that_cannot_be_read_is_checked(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    PIL.Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "in" / "a.png")
    wanted = {"images": str(tmp_path / "in"), "output": str(tmp_path / "out"), "format": ".nrrd", "channels": 1}
    request = Cases(id=1, do="cases", **wanted)

    def denied(*_arguments, **_options):
        raise PermissionError(13, "Permission denied", "in")

    with monkeypatch.context() as patched:
        patched.setattr("prosma.batch.cases.find_cases", denied)
        refused(
            "door/job_files.py: The folder ... could not be read",
            "whether you may read it",
            Job.list_cases,
            request,
        )
    assert Job.list_cases(request)


def test_errors_of_the_system_are_told_with_what_to_do(tmp_path):
    def raised(error):
        raise explained(error)

    try:
        (tmp_path / "none" / "a").write_text("")
    except OSError as error:
        refused("errors.py: could not be read or written: ...", "Check its name", raised, error)
        assert "Free some space" in error_event(error).remedy
    refused(
        "errors.py: Limit the work to an ROI or close other programs", "Limit the work to an ROI", raised, MemoryError()
    )
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a").write_text("")
