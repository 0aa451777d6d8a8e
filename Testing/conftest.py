"""Settings and data shared by all tests. Where Qt's libraries are missing, tests that show the panel are left out."""

import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

import system_libraries

ROOT = Path(__file__).resolve().parents[1]
WITH_PANEL = [ROOT / "Testing" / name for name in ("module", "headless_slicer")]
NO_PANEL = system_libraries.notice()

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # several processes share the machine's cores

# A busy machine is no reason to fail; the examples are few, because most of them run a network.
settings.register_profile("prosma", deadline=None, max_examples=25)
settings.load_profile("prosma")


def shared_data() -> Path:
    """The folder of labelled images that lies beside the repository on developers' machines."""
    return Path(os.environ.get("PROSMA_SHARED_DATA") or ROOT.parent / "shared" / "data")


@pytest.fixture
def shared() -> Path:
    """`shared_data()`; the test is skipped, with the reason, where there is none."""
    folder = shared_data()
    if not folder.is_dir():
        pytest.skip(f"the labelled images are not here ('{folder.name}' beside the repository, or PROSMA_SHARED_DATA)")
    return folder


@pytest.fixture(autouse=True)
def private_home(tmp_path_factory, monkeypatch):
    """Imported models and unpacked archives of a test never reach the user's own folder."""
    monkeypatch.setenv("PROSMA_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(autouse=True)
def tried_remedies(request):
    """A test that is marked with refusals (`remedies.tries`) really meets them."""
    names = [name for mark in request.node.iter_markers("tries") for name in mark.args]
    if not names:
        yield
        return
    from remedies import meets

    yield from meets(names)


@pytest.fixture
def small_files():
    """A context in which this process writes no file beyond some kB, as on a disk that is nearly full."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size=4096):
        usual = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, usual[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)

    return limited


def pytest_ignore_collect(collection_path):
    return True if NO_PANEL and collection_path in WITH_PANEL else None


def pytest_terminal_summary(terminalreporter):
    if NO_PANEL:
        terminalreporter.section("not everything was tested", yellow=True)
        folders = " and ".join(str(folder.relative_to(ROOT)) for folder in WITH_PANEL)
        terminalreporter.write_line(f"The tests in {folders} were skipped.\n{NO_PANEL}")
