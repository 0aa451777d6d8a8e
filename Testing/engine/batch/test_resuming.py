"""A batch of the command line goes on where it stopped, and replaces nothing but its own results."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import names_in, run, write_image
from test_worker import Engine

from prosma.batch.records import RECORDS
from prosma.cli.exit_codes import SOME_FAILED
from small_volumes import smooth_volume
from tiny_model import make_tiny_package

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of three images; the last is broken."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, name in enumerate("ab"):
        write_image(folder / f"{name}.nrrd", smooth_volume((14, 12, 12), seed=seed))
    (folder / "broken.nii.gz").write_bytes(b"not an image")
    return folder


def resume(capsys, images, model, out) -> tuple[int, dict, str]:
    """Exit code, what became of each case (written, a reason for skipping, or an error's code), and stderr."""
    code = run("segment", images, "-m", model.folder, "-o", out, "--resume", "--json")
    said = capsys.readouterr()
    cases = {}
    for case in json.loads(said.out.splitlines()[-1])["cases"]:
        cases[case["case"]] = case["error"]["code"] if "error" in case else case.get("skipped", "written")
    return code, cases, said.err


def states(folder: Path) -> dict:
    """Content and time of change of each result."""
    return {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.glob("*.seg.nrrd")}


def test_a_second_run_computes_only_what_is_missing(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    assert resume(capsys, images, tiny, out)[:2] == (
        SOME_FAILED,
        {"a": "written", "b": "written", "broken": "bad_input"},
    )
    before = states(out)
    (out / "b.seg.nrrd").unlink()
    code, cases, err = resume(capsys, images, tiny, out)
    assert cases == {"a": "finished", "b": "written", "broken": "bad_input"}
    assert code == SOME_FAILED
    assert "1 of 3 cases failed: broken." in err
    after = states(out)
    assert after["a.seg.nrrd"] == before["a.seg.nrrd"]
    assert after["b.seg.nrrd"][0] == before["b.seg.nrrd"][0], "the same input gives the same file"


def test_a_changed_input_or_another_model_is_computed_again(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    resume(capsys, images, tiny, out)
    os.utime(images / "a.nrrd")  # touched, not changed
    write_image(images / "b.nrrd", smooth_volume((14, 12, 12), seed=9))
    assert resume(capsys, images, tiny, out)[1] == {"a": "finished", "b": "written", "broken": "bad_input"}
    other = make_tiny_package(tmp_path / "other", seed=1)
    assert resume(capsys, images, other, out)[1] == {"a": "written", "b": "written", "broken": "bad_input"}


@pytest.mark.parametrize("flags", [["--again"], ["--resume"], []])
def test_files_of_others_and_edited_results_stay(images, tiny, tmp_path, capsys, flags):
    out = tmp_path / "out"
    run("segment", images, "-m", tiny.folder, "-o", out)
    (out / "a.seg.nrrd").write_bytes(b"corrected by hand")
    write_image(images / "c.nrrd", smooth_volume((14, 12, 12), seed=3))
    (out / "c.seg.nrrd").write_bytes(b"somebody else's")
    capsys.readouterr()
    assert run("segment", images, "-m", tiny.folder, "-o", out, *flags) == SOME_FAILED
    said = capsys.readouterr()
    assert "c: There is already a file c.seg.nrrd, which was not written by a batch" in said.err
    assert ("a: a.seg.nrrd was changed after" in said.err) is (flags == ["--again"])
    assert ("(was there already, and was changed since)" in said.out) is (flags != ["--again"])
    assert (out / "a.seg.nrrd").read_bytes() == b"corrected by hand"
    assert (out / "c.seg.nrrd").read_bytes() == b"somebody else's"


def test_an_edited_result_of_an_old_input_is_named_and_stays(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    resume(capsys, images, tiny, out)
    (out / "a.seg.nrrd").write_bytes(b"corrected by hand")
    write_image(images / "a.nrrd", smooth_volume((14, 12, 12), seed=9))
    _code, cases, err = resume(capsys, images, tiny, out)
    assert cases["a"] == "bad_output"
    assert "a.seg.nrrd was changed after ProSMA wrote it from another input" in err
    assert (out / "a.seg.nrrd").read_bytes() == b"corrected by hand"


def test_again_makes_results_once_more_that_are_there(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    resume(capsys, images, tiny, out)
    before = states(out)
    assert run("segment", images, "-m", tiny.folder, "-o", out, "--again") == SOME_FAILED
    after = states(out)
    assert {name: state[0] for name, state in after.items()} == {name: state[0] for name, state in before.items()}
    assert all(after[name][1] > before[name][1] for name in after), "written once more"
    assert (out / RECORDS).read_text().count('"origin"') == 2 * len(after)


def test_a_single_result_is_protected_as_those_of_a_batch(images, tiny, tmp_path, capsys):
    output = tmp_path / "a.nrrd"
    command = ["segment", images / "a.nrrd", "-m", tiny.folder, "-o", output]
    assert run(*command) == 0
    written = output.read_bytes()
    assert run(*command) == 0
    assert "(was there already)" in capsys.readouterr().out
    assert run(*command, "--again") == 0
    assert output.read_bytes() == written
    other = make_tiny_package(tmp_path / "other", seed=1, spacing=None, patch_size=[16, 16, 16])
    assert run("segment", images / "a.nrrd", "-m", other.folder, "-o", output) == 0, "ours, and not edited"
    output.write_bytes(b"corrected by hand")
    capsys.readouterr()
    assert run(*command) == 1
    assert "a.nrrd was changed after ProSMA wrote it" in capsys.readouterr().err
    (tmp_path / "b.nrrd").write_bytes(b"somebody else's")
    assert run("segment", images / "b.nrrd", "-m", tiny.folder, "-o", tmp_path / "b.nrrd") == 1
    assert "which was not written by a batch of ProSMA" in capsys.readouterr().err
    assert (output.read_bytes(), (tmp_path / "b.nrrd").read_bytes()) == (b"corrected by hand", b"somebody else's")


def test_results_beside_the_images_are_no_cases(images, tiny, capsys):
    for _time in range(2):
        run("segment", images, "-m", tiny.folder, "-o", images, "--format", ".nrrd", "--resume")
        capsys.readouterr()
    assert names_in(images) == ["a.nrrd", "b.nrrd", "broken.nii.gz"], "the results would overwrite the images"
    for _time in range(2):
        run("segment", images, "-m", tiny.folder, "-o", images, "--format", ".mha", "--resume")
    assert names_in(images) == ["a.mha", "a.nrrd", "b.mha", "b.nrrd", "broken.nii.gz", RECORDS]
    assert "was there already" in capsys.readouterr().out


def test_parts_of_lines_and_of_files_that_a_killed_run_left_do_not_matter(images, tiny, tmp_path, capsys):
    out = tmp_path / "out"
    resume(capsys, images, tiny, out)
    lines = (out / RECORDS).read_text().splitlines()
    lines = [line for line in lines if "sha256" in line]
    (out / RECORDS).write_text(lines[0] + "\n" + lines[1][:40])
    (out / "b.seg.nrrd").unlink()
    (out / ".b.seg.nrrd.0123abcd-123.seg.nrrd").write_bytes(b"half")
    assert resume(capsys, images, tiny, out)[1] == {"a": "finished", "b": "written", "broken": "bad_input"}
    assert names_in(out) == ["a.seg.nrrd", "b.seg.nrrd", RECORDS]
    assert resume(capsys, images, tiny, out)[1] == {"a": "finished", "b": "finished", "broken": "bad_input"}


def test_the_worker_writes_the_same_files_and_records(images, tiny, tmp_path):
    run("segment", images, "-m", tiny.folder, "-o", tmp_path / "cli")
    engine = Engine()
    engine.send(id="1", do="cases", images=str(images), output=str(tmp_path / "worker"), channels=1)
    cases = engine.answer("1")[0]["cases"]
    assert [(case["name"], case["problem"]) for case in cases] == [("a", ""), ("b", ""), ("broken", "")]
    answers = []
    for number, case in enumerate([*cases, cases[0]]):
        files = {"images": case["images"], "output": case["output"]}
        engine.send(id=number, do="segment", model=str(tiny.folder), device="cpu", **files)
        answers.append(engine.answer(number)[0])
    engine.close()
    assert [answer["event"] for answer in answers] == ["result", "result", "error", "result"]
    assert answers[2]["code"] == "bad_input"
    assert answers[3]["skipped"] == "finished"
    assert {name: state[0] for name, state in states(tmp_path / "cli").items()} == {
        name: state[0] for name, state in states(tmp_path / "worker").items()
    }
    assert origins(tmp_path / "cli") == origins(tmp_path / "worker")


def origins(folder: Path) -> dict:
    lines = map(json.loads, (folder / RECORDS).read_text().splitlines())
    return {line["output"]: line["origin"] for line in lines if "origin" in line}


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIGKILL")
def test_a_killed_command_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    for seed in range(6):
        write_image(images / f"case{seed}.nrrd", smooth_volume((48, 48, 40), seed=seed))
    command = [sys.executable, "-m", "prosma.cli", "segment", images, "-m", tiny.folder, "-o", out]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT / "training")})
    deadline = time.monotonic() + 120
    while len(states(out)) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = states(out)
    assert 2 <= len(before) < 6
    code, cases, _err = resume(capsys, images, tiny, out)
    assert code == 0
    assert list(cases.values()).count("finished") == len(before)
    after = states(out)
    assert len(after) == 6
    assert {name: after[name] for name in before} == before
    assert names_in(out) == [*sorted(after), RECORDS]
