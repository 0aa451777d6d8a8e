"""What a DICOM header declares, against what a model was trained on: at the command line, in Python and the worker."""

import json
from dataclasses import replace

import pytest
from dicom_writing import noise, write_series
from test_worker import Engine, job_files

from prosma.cli import main
from prosma.image.geometry import stack_channels
from prosma.image.modality import declared_otherwise
from prosma.image.reading import read_image
from prosma.inference.fit import DoesNotFit
from prosma.inference.segmenter import Segmenter
from small_volumes import smooth_volume

SAID = "Its DICOM header says that this is CT; the model 'Tiny test model' was trained on MR."


@pytest.mark.parametrize(
    ("model", "declared", "found"),
    [
        ("MR", ["CT"], "CT"),
        ("CT", ["MR"], "MR"),
        ("MR", ["MR", "PT"], "PT"),
        ("colour image", ["US"], "US"),
        ("colour image", ["ES"], None),
        ("MR", ["MR"], None),
        ("MR", ["OT"], None),
        ("MR", [], None),
        ("CT/PET", ["CT", "PT"], None),
        ("unknown", ["CT"], None),
        ("a kind of its own", ["CT"], None),
    ],
)
def test_only_kinds_that_are_known_speak_against_a_model(model, declared, found):
    assert declared_otherwise(model, declared) == found


def test_an_image_knows_what_the_headers_of_its_channels_declare(tmp_path):
    for kind in ("CT", "MR"):
        write_series(tmp_path / kind, noise(), modality=kind)
    assert read_image(tmp_path / "CT").modalities == ("CT",)
    assert read_image([tmp_path / "MR", tmp_path / "CT", tmp_path / "MR"]).modalities == ("MR", "CT")
    ct, plain = read_image(tmp_path / "CT"), smooth_volume((20, 16, 12))
    assert plain.modalities == () and stack_channels([plain, ct]).modalities == ("CT",)
    assert ct.cropped(((0, 8), (0, 8), (0, 8))).modalities == ("CT",)


def test_a_ct_for_a_model_of_mr_is_refused_and_nothing_written_unless_forced(tiny, tmp_path, capsys):
    write_series(tmp_path / "ct", noise(), modality="CT")
    output = tmp_path / "out" / "a.seg.nrrd"
    command = ["segment", str(tmp_path / "ct"), "-m", str(tiny.folder), "-o", str(output), "--json", "--device", "cpu"]
    assert main(command) == 4
    printed = capsys.readouterr()
    (case,) = json.loads(printed.out)["cases"]
    assert case["fit"] == {"verdict": "unfit", "score": None, "reasons": [SAID]}
    assert SAID in printed.err and "Choose a model for this kind of image." in printed.err and not output.exists()
    assert main([*command, "--force"]) == 0
    (case,) = json.loads(capsys.readouterr().out)["cases"]
    assert case["fit"]["verdict"] == "unfit" and SAID in case["notices"] and output.exists()


def test_an_mr_or_a_file_that_declares_nothing_is_taken_as_before(tiny, tmp_path):
    segmenter = Segmenter(tiny, "cpu")
    write_series(tmp_path / "mr", noise(), modality="MR")
    for image in (read_image(tmp_path / "mr"), smooth_volume()):
        assert segmenter.segment(image).fit.verdict == "unknown"
    with pytest.raises(DoesNotFit, match="Its DICOM header says that this is PT"):
        segmenter.segment(replace(smooth_volume(), modalities=("PT",)))
    assert segmenter.fit_of(replace(smooth_volume(), modalities=("PT",))).verdict == "unfit"


def test_the_worker_is_told_by_whoever_hands_over_voxels(tiny, tmp_path):
    facts = job_files(tmp_path / "job", smooth_volume())
    facts["channels"][0]["modality"] = "CT"
    request = {"do": "segment", "model": str(tiny.folder), "device": "cpu", **facts}
    engine = Engine()
    try:
        engine.send(id="a", **request)
        refused, _ = engine.answer("a")
        job_files(tmp_path / "job", smooth_volume())  # the worker removes what it was given
        engine.send(id="b", **request, force=True)
        forced, _ = engine.answer("b")
    finally:
        engine.close()
    assert (refused["event"], refused["code"], refused["fit"]["verdict"]) == ("error", "does_not_fit", "unfit")
    assert forced["event"] == "result" and SAID in forced["notices"]
