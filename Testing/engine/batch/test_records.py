"""The records of a large cohort: what is asked for is found, at once and in little memory, whatever else lies there."""

import json
import os
import random
import subprocess
import sys
import time
import tracemalloc

import pytest
from test_cli import write_image

from prosma import files
from prosma.batch import records as records_module
from prosma.batch.records import RECORDS, Records
from prosma.batch.result_file import ResultFile
from small_volumes import smooth_volume

MANY = 20_000


def result_line(number: int, **changes) -> dict:
    """As long as real ones: about 1 kB."""
    report = {"segments": [{"value": 1, "name": "x" * 40, "voxels": number, "ml": 0.5}] * 8, "notices": []}
    origin = {"model": {"id": "m", "version": "1", "sha256": "a" * 64}, "options": {}, "input": f"{number:064x}"}
    name = f"case{number:06d}.seg.nrrd"
    line = {"output": name, "sha256": f"{number:064x}", "origin": origin, "files": [], "written": "2026-01-01"}
    return {**line, "report": report, **changes}


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A folder whose records have MANY lines, with failures among them."""
    folder = tmp_path_factory.mktemp("large")
    with (folder / RECORDS).open("w") as file:
        file.write(json.dumps({"batch": {"cases": MANY, "part": None}, "written": "2026-01-01"}) + "\n")
        for number in range(MANY):
            line = result_line(number)
            if number % 100 == 7:
                line = {"output": line["output"], "error": {"code": "bad_input", "message": str(number)}, "report": {}}
            file.write(json.dumps(line) + "\n")
    return folder


def test_a_large_cohort_takes_little_memory_and_answers_at_once(large):
    tracemalloc.start()
    records = Records(large)
    count = records.count()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == MANY + 1
    assert (large / RECORDS).stat().st_size > 800 * MANY
    assert most < 500 * MANY, "well below the size of the file"
    began = time.process_time()
    for number in random.Random(0).sample(range(MANY), 300):
        failed = number % 100 == 7
        name = result_line(number)["output"]
        assert records.of(name) == ([] if failed else [result_line(number)])
        error = {"code": "bad_input", "message": str(number)} if failed else None
        assert records.failure_since(name, 0) == error
        assert records.failure_since(name, number + 2) is None
    assert (time.process_time() - began) / 600 < 0.005, "seconds a question"
    assert len(records.names()) == MANY - MANY // 100


def test_lines_in_any_form_are_understood_and_damaged_ones_do_no_harm(tmp_path):
    odd = 'Müller "7" \\ ä.seg.nrrd'
    plain, reordered = result_line(1), dict(reversed(result_line(2).items()))
    rows = [
        json.dumps(plain),
        json.dumps(plain)[:200],  # a process was killed
        json.dumps(reordered),
        json.dumps(result_line(3, output=odd)),
        json.dumps(result_line(4, output=odd), ensure_ascii=False),
        '{"output": "nothing.seg.nrrd", "sha256": ',
        "no JSON",
        "[1, 2]",
        "",
        json.dumps({"output": odd, "measured": "d" * 64, "segments": [{"box": None}], "written": "2026-01-01"}),
    ]
    (tmp_path / RECORDS).write_text("\n".join(rows) + "\n", encoding="utf-8")
    records = Records(tmp_path)
    assert records.of(plain["output"]) == [plain]
    assert records.of(reordered["output"]) == [reordered]
    assert records.of("nothing.seg.nrrd") == []
    assert [line["report"]["segments"][0]["voxels"] for line in records.of(odd)] == [3, 4]
    assert records.measures_of(odd, "d" * 64) == [{"box": None}]
    assert len(records.lines()) == 5
    records.append({"output": plain["output"], "error": {"code": "internal"}, "written": "2026-01-01"})
    assert records.failure_since(plain["output"], 0) == {"code": "internal"}


def test_images_in_one_folder_are_read_once_for_several_series(tiny, tmp_path, monkeypatch):
    """Once for both results, and again after a change."""
    folder = tmp_path / "images"
    folder.mkdir()
    write_image(folder / "a.nrrd", smooth_volume((14, 12, 12)))
    digests = []
    original = records_module.file_digest

    def counted(files):
        digests.append(files)
        return original(files)

    monkeypatch.setattr(records_module, "file_digest", counted)
    made = [
        ResultFile.from_files(tmp_path / f"{which}.seg.nrrd", tiny, {}, [folder], series=[which])
        for which in ("x", "y")
    ]
    assert len(digests) == 1
    inputs = [file.inputs["digest"] for file in made]
    assert inputs[0].split(" ")[0] == inputs[1].split(" ")[0] and inputs[0] != inputs[1]
    write_image(folder / "a.nrrd", smooth_volume((14, 12, 12), seed=1))
    changed = ResultFile.from_files(tmp_path / "x.seg.nrrd", tiny, {}, [folder], series=["x"])
    assert len(digests) == 2
    assert changed.inputs["digest"] != inputs[0]


def test_a_folder_of_many_results_is_not_listed_for_each_new_one(tmp_path, monkeypatch):
    """Once, and again now and then; what a dead process left is found all the same."""
    for number in range(20_000):
        (tmp_path / f"case{number}.seg.nrrd").touch()
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    left = tmp_path / f".case7.seg.nrrd.{files.COMPUTER}-{process.pid}.seg.nrrd"
    left.touch()
    listings = []
    original = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: listings.append(folder) or original(folder))
    began = time.monotonic()
    for number in range(300):
        with files.replaced_when_whole(tmp_path / f"case{number}.seg.nrrd", ".seg.nrrd") as temporary:
            temporary.write_bytes(b"new")
    assert time.monotonic() - began < 60
    assert 1 <= len(listings) < 100
    assert not left.exists()
    assert (tmp_path / "case299.seg.nrrd").read_bytes() == b"new"
