"""Requests and events of the worker: what docs/door.md says of them, and what becomes of wrong ones."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from test_worker import Engine, job_files

from prosma.door.events import Described, Failed, Listed, Progress, Prompted, Ready, Segmented, Skipped, Written
from prosma.door.requests import (
    Cancel,
    Cases,
    ChannelFile,
    Describe,
    PartFile,
    Prompt,
    Segment,
    Shutdown,
    id_of,
    parsed,
)
from prosma.errors import EngineError, UserFacingError
from small_volumes import smooth_volume
from type_fuzz import mutants

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "door.md").read_text(encoding="utf-8")
KINDS = {
    "`describe`": Describe,
    "`segment`": Segment,
    "`prompt`": Prompt,
    "`cases`": Cases,
    "`cancel`": Cancel,
    "`shutdown`": Shutdown,
}
SEGMENT = {
    "id": "a",
    "do": "segment",
    "model": "m",
    "device": "cpu",
    "folder": "f",
    "channels": [{"file": "c.npy", "ijk_to_ras": np.eye(4).tolist()}],
    "images": ["scan.nii"],
    "series": ["1"],
    "output": "x.nrrd",
    "input": "digest",
    "roi": [[0, 1], [0, 1], [0, 1]],
    "overlap": 0.5,
    "mirror": True,
    "force": False,
    "outputs": ["uncertainty"],
}


def table(title: str) -> list[list[str]]:
    """The rows of the table under a title of the page."""
    section = re.split(r"\n#+ ", PAGE.split(f"### {title}\n")[1])[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def documented(title: str) -> set[str]:
    """The fields that a table names; a row may name several."""
    return {name for row in table(title) for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize(("title", "kind"), [*KINDS.items(), ("A channel", ChannelFile), ("A part", PartFile)])
def test_the_page_names_every_field_of_a_request_with_its_default(title, kind):
    fields = {field.name: field for field in dataclasses.fields(kind) if field.name not in ("id", "do")}
    assert documented(title) == set(fields) if fields else "no fields of its own" in PAGE.split(f"### {title}\n")[1]
    for row in table(title):
        default = fields[row[0].strip("`")].default
        told = json.loads(row[1].strip("`")) if row[1] else dataclasses.MISSING
        assert told == default and type(told) is type(default), row


EVENTS = {
    "`ready`": [Ready],
    "`progress`": [Progress],
    "`error`": [Failed],
    "`result` of `describe`": [Described],
    "`result` of `segment`": [Segmented],
    "`result` of `segment` with `output`": [Written, Skipped],
    "`result` of `prompt`": [Prompted],
    "`result` of `cases`": [Listed],
}


@pytest.mark.parametrize(("title", "kinds"), EVENTS.items())
def test_the_page_names_every_field_of_an_event(title, kinds):
    assert documented(title) == {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert {kind.NAME for kind in kinds} == {re.match(r"`(\w+)`", title)[1]}


@pytest.fixture(scope="module")
def engine(tiny):
    engine = Engine("--preload", tiny.folder)
    yield engine
    engine.close()


def test_events_have_the_fields_that_the_page_names(engine, tiny, tmp_path):
    image = smooth_volume((30, 25, 20))
    sitk.WriteImage(sitk.GetImageFromArray(image.array[0].T.astype(np.int16)), str(tmp_path / "scan.nrrd"))
    model = str(tiny.folder)
    assert set(engine.ready) - {"event"} == documented("`ready`")
    engine.send(id=1, do="describe", model=model)
    seen = {"`result` of `describe`": engine.answer(1)[0]}
    volumes = ["probabilities", "uncertainty", "gate_map"]
    engine.send(id=2, do="segment", model=model, **job_files(tmp_path / "job", image), outputs=volumes)
    seen["`result` of `segment`"], progress = engine.answer(2)
    seen["`progress`"] = progress[0]
    to_file = {"images": [str(tmp_path / "scan.nrrd")], "output": str(tmp_path / "out" / "x.seg.nrrd")}
    engine.send(id=3, do="segment", model=model, **to_file)
    written = engine.answer(3)[0]
    engine.send(id=4, do="segment", model=model, **to_file)
    skipped = engine.answer(4)[0]
    assert set(skipped) == {"id", "event", "output", "skipped"}
    seen["`result` of `segment` with `output`"] = {**written, **skipped}
    engine.send(id=5, do="cases", images=str(tmp_path), output=str(tmp_path / "out"))
    seen["`result` of `cases`"] = engine.answer(5)[0]
    engine.send(id=6, do="cases", images=str(tmp_path / "absent"), output=str(tmp_path / "out"))
    seen["`error`"] = engine.answer(6)[0]
    for title, event in seen.items():
        assert event["event"] == re.match(r"`(\w+)`", title)[1], event
        assert set(event) - {"event", "id"} == documented(title), title
    assert set(seen["`result` of `cases`"]["cases"][0]) == {"name", "images", "series", "output", "problem"}
    assert set(written["segments"][0]) == {"value", "name", "voxels", "ml", "expected_dice", "presence"}


def line(**request) -> bytes:
    return json.dumps(request).encode()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"device": 5}, "'device' should be a text, not 5"),
        ({"roi": [[0, 1], [0, 1]]}, "'roi' should be a list of 3, each a list of 2"),
        ({"roi": [[0, 1], [0, 1], [0, 1.5]]}, "'roi[2][1]' should be a whole number"),
        ({"overlap": 0.95}, "'overlap' should be a number from 0 to 0.9"),
        ({"outputs": 5}, "'outputs' should be a list"),
        ({"outputs": ["volume"]}, "'outputs[0]' should be 'probabilities', 'uncertainty' or 'gate_map'"),
        (
            {"channels": [{"file": "../x.npy", "ijk_to_ras": np.eye(4).tolist()}]},
            "'channels[0].file' should be the name of",
        ),
        ({"channels": [{"file": "x.npy"}]}, "'channels[0].ijk_to_ras' is missing"),
        ({"mirrored": True}, "'mirrored' should be left out (known are id"),
        ({"do": "fly"}, "'do' should be 'describe', 'segment', 'prompt', 'cases', 'cancel' or 'shutdown'"),
        ({"images": None, "channels": None}, "'channels' is missing"),
        ({"images": None, "channels": []}, "'channels' is missing"),
        ({"images": None, "folder": None}, "'folder' is missing"),
        ({"output": None, "folder": None}, "'folder' is missing"),
        ({"images": None, "input": None}, "'input' is missing"),
        ({"model": "a\0b"}, "'model' should be a path"),
    ],
)
def test_an_error_names_the_field(change, words):
    with pytest.raises(EngineError) as refused:
        parsed(line(**{**SEGMENT, **change}))
    assert refused.value.code == "bad_input" and words in refused.value.message and refused.value.remedy


def test_the_least_and_the_whole_request_are_right():
    assert parsed(line(id=1, do="shutdown")) == Shutdown(id=1, do="shutdown")
    assert parsed(line(id="x", do="cases", images="i", output="o")).format == ".seg.nrrd"
    whole = parsed(line(**SEGMENT))
    assert (whole.channels[0].file, whole.roi, whole.mirror) == ("c.npy", [[0, 1], [0, 1], [0, 1]], True)
    least = parsed(line(id="x", do="segment", model="m", images=["i"], output="o"))
    assert least == Segment(id="x", do="segment", model="m", images=["i"], output="o")
    odd = parsed(line(id="x", do="cases", images="no\udcfftext", output="o"))
    assert odd.images == "no\udcfftext", "names of files may hold any bytes"


CASES = {"id": 1, "do": "cases", "images": "i", "output": "o", "format": ".nrrd", "channels": 2}


@pytest.mark.parametrize("request_", [SEGMENT, CASES])
def test_every_wrong_value_in_a_request_is_a_sentence_or_does_no_harm(request_):
    right = 0
    for place, wrong, mutant in mutants(request_):
        try:
            parsed(line(**mutant))
            right += 1
        except UserFacingError as error:
            assert error.code == "bad_input" and error.message.endswith("."), (place, wrong)
    assert right > 3


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)


@given(st.binary(max_size=200) | JSON.map(lambda value: line(id=value, do=value, job=value)))
def test_no_line_is_too_odd_for_a_sentence(data):
    try:
        parsed(data)
    except EngineError as error:
        assert error.code == "bad_input"
    assert id_of(data) is None or isinstance(id_of(data), (str, int))


def test_a_worker_survives_hundreds_of_wrong_requests(engine, tiny):
    """A third of them, through the real process; none of them leads to a fault, and the next job is right."""
    right = {**SEGMENT, "model": str(tiny.folder)}
    sent = [mutant for place, _, mutant in mutants(right) if place != ("id",)][::3]
    for number, mutant in enumerate(sent):
        engine.send(**{**mutant, "id": number})
        event = engine.answer(number)[0]
        assert event["event"] == "error" and event["code"] != "internal", (mutant, event)
    assert len(sent) > 100
    engine.send(id="last", do="describe", model=str(tiny.folder))
    assert engine.answer("last")[0]["model"] == "tiny"
