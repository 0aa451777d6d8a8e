"""What all tests share: where Qt's libraries are missing, tests that show the panel are left out, and it is said."""

from pathlib import Path

import system_libraries

HERE = Path(__file__).parent
WITH_PANEL = (HERE / "module", HERE / "headless_slicer")
MISSING = system_libraries.missing_for_panel()


def pytest_ignore_collect(collection_path):
    return True if MISSING and collection_path in WITH_PANEL else None


def pytest_terminal_summary(terminalreporter):
    if system_libraries.notice():
        terminalreporter.section("not everything was tested", yellow=True)
        terminalreporter.write_line(system_libraries.notice())
    if MISSING:
        folders = " and ".join(str(folder.relative_to(HERE.parent)) for folder in WITH_PANEL)
        terminalreporter.write_line(f"The tests in {folders} were skipped.")
