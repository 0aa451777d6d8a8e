"""Servers that answer otherwise than Orthanc: less than asked for, more than asked for, or nothing that can be used."""

import json
import re
import time
from urllib.parse import parse_qs, urlsplit

import pydicom
import pytest
from dicom_writing import noise, write_series

from dicomweb_stub import serving
from prosma.cli import exit_codes, main
from prosma.pacs import round_trip
from remedies import tries
from tiny_model import make_tiny_package

pytest.importorskip("dicomweb_client")
pytest.importorskip("highdicom")


@pytest.fixture
def model(tmp_path):
    return make_tiny_package(tmp_path / "tiny", spacing=None, patch_size=[16, 16, 16], seed=7)


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("prosma.pacs.access.FIRST_WAIT_MS", 1)
    monkeypatch.setenv("NETRC", str(tmp_path / "nosuch"))
    images = []
    for number, (modality, part) in enumerate([("MR", "HEAD"), ("CT", "HEAD"), ("MR", "FOOT")], start=1):

        def edit(ds, _k, number=number, part=part):
            ds.StudyInstanceUID, ds.SeriesInstanceUID = "1.2.9", f"1.2.9.{number}"
            ds.BodyPartExamined, ds.StudyDate, ds.FrameOfReferenceUID = part, "20260303", "1.2.9.9"

        files = write_series(tmp_path / f"series{number}", noise(seed=number), modality=modality, edit=edit)
        images += [pydicom.dcmread(file) for file in files]
    with serving(images) as stub:
        yield stub


def ask(server, model, tmp_path, *more) -> int:
    words = (server.url, "-m", model.folder, "-o", tmp_path / "work", "--device", "cpu", *more)
    return main(["dicomweb", *map(str, words)])


@pytest.mark.parametrize("silent", [(), ("Modality",), ("StudyDate", "Modality")])
def test_filters_that_a_server_ignores_or_does_not_tell_count_all_the_same(silent, server, model, tmp_path, capsys):
    server.silent = silent
    assert ask(server, model, tmp_path, "--list", "--body-part", "HEAD", "--study-date", "20260101-") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["1.2.9.1"]
    assert any(parse_qs(urlsplit(path).query).get("BodyPartExamined") == ["HEAD"] for path, _headers in server.asked)


def test_a_series_of_which_an_image_does_not_come_is_not_segmented(server, model, tmp_path, capsys):
    server.left_out = 1
    assert ask(server, model, tmp_path, "--series-uid", "1.2.9.1") == exit_codes.FAILED
    assert "Of 12 images of the series 1 did not come from 127.0.0.1" in capsys.readouterr().err
    assert not server.stored and not list((tmp_path / "work").glob("*.dcm"))
    server.left_out = 0
    server.stow_says = json.dumps(
        {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}
    ).encode()  # took something else
    assert ask(server, model, tmp_path, "--series-uid", "1.2.9.1") == exit_codes.FAILED
    assert "did not take the segmentation." in capsys.readouterr().err
    assert len(server.stored) == 1


def test_the_list_for_programs_holds_what_that_for_people_does(server, model, tmp_path, capsys):
    assert ask(server, model, tmp_path, "--list", "--json") == 0
    listed = json.loads(capsys.readouterr().out)["series"]
    assert [(series["uid"], series["modality"], series["date"], series["done"]) for series in listed] == [
        ("1.2.9.1", "MR", "20260303", False),
        ("1.2.9.3", "MR", "20260303", False),
    ]


@tries("pacs/access.py: broke off")
@tries("pacs/access.py: sent is no DICOM image")
def test_a_series_that_comes_broken_keeps_no_other_one_back(server, model, tmp_path, capsys):
    server.broken, server.takes = {"1.2.9.1": "breaks off", "1.2.9.2": "junk"}, True
    assert ask(server, model, tmp_path, "--modality", "*", "--force") == exit_codes.SOME_FAILED
    said = capsys.readouterr().err
    assert "broke off" in said and "is no DICOM image" in said and said.count("the same call tries again") == 2
    assert len(server.stored) == 1, "the third one"
    server.broken = {}
    assert ask(server, model, tmp_path, "--modality", "*", "--force") == 0
    assert len(server.stored) == 3


def test_a_server_that_names_a_series_like_a_path_reaches_no_other_folder(server, model, tmp_path):
    told = pydicom.Dataset.from_json({"0020000D": {"vr": "UI", "Value": ["1.2.9"]}})
    told.SeriesInstanceUID, told.SOPInstanceUID, told.Modality = "../../beside", "1.2.9.1.1", "MR"
    server.says = json.dumps([told.to_json_dict()]).encode()
    before = sorted(tmp_path.iterdir())
    assert ask(server, model, tmp_path) == exit_codes.FAILED
    assert any(path.startswith("/web/studies/1.2.9") for path, _ in server.asked), "it wanted the series"
    assert [path for path in sorted(tmp_path.iterdir()) if path not in before] == [tmp_path / "work"]


@pytest.mark.parametrize("content", [b"null", b"[1, 2]", b'{"a": 1}', b"[[]]"])
def test_json_of_another_make_is_no_dicomweb(content, server, model, tmp_path, capsys):
    server.says = content
    assert ask(server, model, tmp_path, "--list") == exit_codes.FAILED
    assert "does not answer as a DICOMweb server." in capsys.readouterr().err


def fetched(server) -> list[str]:
    """The series whose images were asked for."""
    found = (re.fullmatch(r"/web/studies/[\d.]+/series/([\d.]+)", path) for path, _headers in list(server.asked))
    return [match[1] for match in found if match]


def test_while_a_series_is_segmented_the_images_of_the_next_one_come_and_no_more(
    server, model, tmp_path, monkeypatch, capsys
):
    """What is fetched by the time that each series is segmented; of the last call only the first one is done."""
    original, seen = round_trip.run_case, []

    def run_case(*arguments, **options):
        deadline = time.monotonic() + 60
        while len(fetched(server)) < min(len(seen) + 2, 3) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # time for more than that
        seen.append(fetched(server))
        return original(*arguments, **options)

    monkeypatch.setattr(round_trip, "run_case", run_case)
    assert ask(server, model, tmp_path, "--modality", "*", "--force") == exit_codes.FAILED, "this server takes nothing"
    series = [f"1.2.9.{number}" for number in (1, 2, 3)]
    assert seen == [series[:2], series, series] and len(server.stored) == 3
    server.asked.clear()
    seen.clear()
    for path in (tmp_path / "work").iterdir():
        path.unlink()
    assert ask(server, model, tmp_path, "--modality", "*", "--force", "--max-failures", "1") == exit_codes.FAILED
    assert seen == [series[:2]] and fetched(server) == series[:2]
    assert sorted(path.suffix for path in (tmp_path / "work").iterdir()) == [".dcm", ".jsonl"], "no image stays"
    capsys.readouterr()


def test_a_refusal_is_a_named_failure_and_the_next_call_stores_the_same_bytes(server, model, tmp_path, capsys):
    server.stow = 409
    for words in (["--json"], []):
        assert ask(server, model, tmp_path, "--series-uid", "1.2.9.1", *words) == exit_codes.FAILED
        assert "1.2.9.1: The server 127.0.0.1" in capsys.readouterr().err.replace(str(server.server_port), "")
    first, second = server.stored
    assert first == second


def test_an_image_that_does_not_suit_the_model_is_stored_only_by_force(server, tmp_path, capsys):
    coarse = make_tiny_package(tmp_path / "coarse", spacing=[100.0, 100.0, 100.0], patch_size=[16, 16, 16])
    assert ask(server, coarse, tmp_path, "--series-uid", "1.2.9.1") == exit_codes.FAILED
    assert "--force runs it all the same." in capsys.readouterr().err
    assert not server.stored
    server.stow = 409  # it is asked to take it, and does not
    assert ask(server, coarse, tmp_path, "--series-uid", "1.2.9.1", "--force") == exit_codes.FAILED
    assert len(server.stored) == 1


def test_a_busy_server_is_asked_again_and_then_given_up(server, model, tmp_path, capsys):
    server.busy = 3
    assert ask(server, model, tmp_path, "--list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    server.busy = 1000
    assert ask(server, model, tmp_path, "--list") == exit_codes.FAILED
    assert "refused the request (503)" in capsys.readouterr().err


def test_a_token_is_shown_to_the_server_and_to_nobody_else(server, model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PROSMA_DICOMWEB_TOKEN", "t0ken")
    assert ask(server, model, tmp_path, "--list") == 0
    assert {headers["Authorization"] for _path, headers in server.asked} == {"Bearer t0ken"}
    assert "t0ken" not in str(capsys.readouterr())


def test_wrong_addresses_and_what_is_no_dicomweb_are_told_in_a_sentence(server, model, tmp_path, capsys):
    for url in ("pacs", "ftp://pacs/x", "http://", "http://pacs:port/", "https://pacs/dicom-web?x=1"):
        assert main(["dicomweb", url, "-m", str(model.folder), "-o", str(tmp_path / "work")]) == exit_codes.FAILED
        assert f"'{url}' is no address of a DICOMweb server." in capsys.readouterr().err
    server.html = True
    assert ask(server, model, tmp_path) == exit_codes.FAILED
    assert "does not answer as a DICOMweb server." in capsys.readouterr().err
    assert ask(server, model, tmp_path, "--study-date", "yesterday") == exit_codes.FAILED
    assert "'yesterday' is no date" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()


def test_models_that_cannot_do_series_say_so(server, tmp_path, capsys):
    two = make_tiny_package(tmp_path / "two", channels=2)
    assert ask(server, two, tmp_path) == exit_codes.FAILED
    assert "takes 2 images a case, and a series is one" in capsys.readouterr().err
    photos = make_tiny_package(tmp_path / "photos", modality="colour image")
    assert ask(server, photos, tmp_path) == exit_codes.FAILED
    assert "no modality of DICOM. Say with --modality" in capsys.readouterr().err
    assert ask(server, photos, tmp_path, "--modality", "CT", "--list") == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_what_travels_unencrypted_is_told(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("prosma.pacs.access.FIRST_WAIT_MS", 1)
    words = ["-m", str(model.folder), "-o", str(tmp_path / "work")]
    assert main(["dicomweb", "http://pacs.invalid/web", *words]) == exit_codes.FAILED
    said = capsys.readouterr().err
    assert "travel unencrypted to pacs.invalid" in said and "The server pacs.invalid does not answer" in said
    assert main(["dicomweb", "https://pacs.invalid/web", *words]) == exit_codes.FAILED
    assert "unencrypted" not in capsys.readouterr().err


def test_without_the_library_one_sentence_says_what_to_do(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "dicomweb_client.web", None)
    words = ["-m", str(model.folder), "-o", str(tmp_path / "work")]
    assert main(["dicomweb", "http://127.0.0.1:1/web", *words]) == exit_codes.FAILED
    assert "pip install './training[dicomweb]'" in capsys.readouterr().err
