"""DICOMweb servers that refuse or fail, and what the refusals say is to be done (training/prosma/pacs)."""

import sys

import pydicom
import pytest
from dicom_writing import noise, write_series

from dicomweb_stub import serving
from prosma.cli.app import main
from prosma.pacs.access import PASSWORD, TOKEN, USER, check_address, client_for, explained_for
from prosma.pacs.query import Query, Series
from prosma.pacs.server import Server
from remedies import complained, refused
from tiny_model import make_tiny_package

pytest.importorskip("dicomweb_client")
pytest.importorskip("highdicom")


@pytest.fixture
def model(tmp_path):
    return make_tiny_package(tmp_path / "tiny", spacing=None, patch_size=[16, 16, 16])


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setattr("prosma.pacs.access.FIRST_WAIT_MS", 1)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    ids = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1", "FrameOfReferenceUID": "1.2.9.9"}
    files = write_series(tmp_path / "series", noise(), StudyDate="20260303", **ids)
    with serving([pydicom.dcmread(file) for file in files]) as stub:
        yield stub


SERIES = Series("1.2.9", "1.2.9.1")


def call(server, model, tmp_path, *more):
    words = ["dicomweb", server.url, "-m", model.folder, "-o", tmp_path / "work", "--device", "cpu", *more]
    return list(map(str, words))


def test_addresses_and_who_asks(model, tmp_path):
    refused(
        "pacs/access.py: holds a user's name or a password",
        f"Set {USER} and {PASSWORD}",
        check_address,
        "https://a:b@pacs/x",
    )
    error = refused(
        "pacs/access.py: is no address of a DICOMweb server", "Give one like https://", check_address, "pacs"
    )
    check_address(error.remedy.removeprefix("Give one like ").rstrip("."))
    half = {USER: "someone"}
    refused("pacs/access.py: only one is set", "Set both, or none", client_for, "https://pacs/x", half)
    assert client_for("https://pacs/x", {}) and client_for("https://pacs/x", {**half, PASSWORD: "secret"})


def test_dates_are_written_as_it_is_said():
    error = refused("pacs/query.py: is no date", "Say YYYYMMDD", Query, {"StudyDate": "yesterday"})
    assert "YYYYMMDD-YYYYMMDD, YYYYMMDD- or -YYYYMMDD" in error.remedy
    for date in ("20260101", "20260101-20260202", "20260101-", "-20260101"):
        assert Query({"StudyDate": date}).wanted["StudyDate"] == date


def test_what_a_server_needs_to_see_is_set_and_what_it_has_is_named(server, monkeypatch):
    server.busy, server.busy_says = 1, 401
    name = "pacs/access.py: does not let us in"
    refused(name, f"{TOKEN}, in the environment", Server(server.url).find, Query({}))
    monkeypatch.setenv(TOKEN, "t0ken")
    (found,) = Server(server.url).find(Query({}))
    assert found.uid == SERIES.uid and server.asked[-1][1]["Authorization"] == "Bearer t0ken"
    server.busy, server.busy_says = 1, 404
    refused("pacs/access.py: has nothing under that address", "Check the address", Server(server.url).find, Query({}))
    server.html = True
    name = "pacs/access.py: does not answer as a DICOMweb server"
    refused(name, "it often ends with /dicom-web", Server(server.url).find, Query({}))
    server.html = False
    assert Server(server.url).find(Query({}))


def test_the_same_call_tries_again(server, model, tmp_path, capsys):
    server.busy = 1000
    name = "pacs/access.py: refused the request"
    refused(name, "the same call tries again", Server(server.url).find, Query({}))
    server.busy, server.left_out = 0, 1
    (tmp_path / "fetched").mkdir()
    uids = Server(server.url).instances(SERIES)
    name = "pacs/server.py: did not come from"
    refused(name, "The same call tries again", Server(server.url).fetch, SERIES, uids, tmp_path / "fetched")
    server.left_out = 0
    Server(server.url).fetch(SERIES, uids, tmp_path / "fetched")
    assert len(list((tmp_path / "fetched").iterdir())) == 12
    images, server.images = server.images, []
    refused("pacs/server.py: has no images of the series", "Try again later", Server(server.url).instances, SERIES)
    server.images = images
    assert len(Server(server.url).instances(SERIES)) == 12
    assert main(call(server, model, tmp_path, "--json")) and "did not take the segmentation" in capsys.readouterr().out
    (result,) = (tmp_path / "work").glob("*.dcm")
    refused(
        "pacs/server.py: did not take the segmentation", "the same call tries again", Server(server.url).store, result
    )
    server.takes = True
    assert main(call(server, model, tmp_path)) == 0
    assert Server(server.url).store(result) == pydicom.dcmread(result).SOPInstanceUID


def test_a_server_that_is_gone_is_there_again(server):
    import requests

    def gone():
        with explained_for("pacs"):
            raise requests.ConnectionError("refused")

    refused("pacs/access.py: does not answer (...)", "the same call goes on", gone)
    assert Server(server.url).find(Query({}))


def test_a_changed_result_is_moved_away_and_made_again(server, model, tmp_path, capsys):
    assert main(call(server, model, tmp_path)) and capsys.readouterr()
    (result,) = (tmp_path / "work").glob("*.dcm")
    with result.open("ab") as file:
        file.write(bytes(2))
    server.takes = True
    name = "pacs/round_trip.py: was changed after ProSMA wrote it"
    complained(name, "or move it away and run this again", call(server, model, tmp_path), capsys)
    result.rename(tmp_path / "mine.dcm")
    assert main(call(server, model, tmp_path)) == 0 and result.exists()


def test_models_and_libraries(server, tmp_path, capsys, monkeypatch):
    two = make_tiny_package(tmp_path / "two", channels=2, spacing=None, patch_size=[16, 16, 16])
    name = "cli/dicomweb.py: Fetch the series, and use"
    complained(name, "once for each channel", call(server, two, tmp_path), capsys)
    folder, output = str(tmp_path / "series"), str(tmp_path / "a.nrrd")
    segment = ["segment", folder, folder, "-m", str(two.folder), "-o", output, "--device", "cpu", "--force"]
    assert main([*segment, "--series", "1", "--series", "1"]) == 0
    other = make_tiny_package(tmp_path / "photos", modality="colour image")
    name = "cli/dicomweb.py: which is no modality of DICOM"
    complained(name, "Say with --modality which series", call(server, other, tmp_path), capsys)
    assert main(call(server, other, tmp_path, "--modality", "MR", "--list")) == 0
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "dicomweb_client.web", None)
        name = "pacs/access.py: A DICOMweb server needs the Python package"
        refused(name, "pip install './training[dicomweb]'", Server, server.url)
    assert Server(server.url).find(Query({}))


def test_of_a_series_of_several_volumes_one_is_fetched_and_chosen(server, model, tmp_path, capsys):
    again = write_series(tmp_path / "later", noise(seed=1), StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.1")
    server.images += [pydicom.dcmread(file) for file in again]
    name = "pacs/round_trip.py: Fetch it, and choose one of its volumes"
    complained(name, "with `prosma segment --series`", call(server, model, tmp_path), capsys)
    (tmp_path / "fetched").mkdir()
    fetch = Server(server.url)
    fetch.fetch(SERIES, fetch.instances(SERIES), tmp_path / "fetched")
    segment = [
        "segment",
        tmp_path / "fetched",
        "-m",
        model.folder,
        "-o",
        tmp_path / "a.nrrd",
        "--device",
        "cpu",
        "--force",
    ]
    assert main(list(map(str, [*segment, "--series", "2"]))) == 0 and (tmp_path / "a.nrrd").exists()
