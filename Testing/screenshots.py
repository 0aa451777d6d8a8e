"""The pictures in Resources/Panel.md: each section of the panel at work on the bundled sample. `make screenshots` runs it."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import demo
import system_libraries

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("ProSMASegmentation", "SegmentEditorProSMARefine")
SECTIONS = ("input", "result", "correct", "learn", "batch", "more", "setup")
PANEL_WIDTH = 520  # pixels


def main() -> int:
    options = _options()
    lacking = system_libraries.notice()
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    import headless_slicer

    output = options.output.resolve()
    scratch = tempfile.TemporaryDirectory(prefix="prosma-screenshots-")
    os.chdir(scratch.name)  # where the section Learn saves its case
    *_, widget = (headless_slicer.loadModule(ROOT / "ProSMASegmentation" / f"{name}.py") for name in reversed(MODULES))
    try:
        demo.click_segment(headless_slicer, widget)
        for section in SECTIONS:
            _open_alone(headless_slicer, widget.ui, section)
            _use(headless_slicer, widget, section)
            file = output / f"{section}.png"
            if not _picture(getattr(widget.ui, f"{section}CollapsibleButton")).save(str(file)):
                print(f"{file} could not be written", file=sys.stderr)
                return 1
            print(f"Written: {file.name}")
    finally:
        headless_slicer.close()
        os.chdir(ROOT)
        scratch.cleanup()
    return 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "Panel", help="folder for the pictures")
    return parser.parse_args()


def _open_alone(headless_slicer, ui, section: str) -> None:
    for name in SECTIONS:
        getattr(ui, f"{name}CollapsibleButton").collapsed = name != section
    headless_slicer.processEvents()


def _use(headless_slicer, widget, section: str) -> None:
    """Do in a section what it is for."""
    ui, click = widget.ui, headless_slicer.click

    def wait(until):
        headless_slicer.processEvents(until=until, timeout=demo.SECONDS_TO_SEGMENT)

    if section == "correct":
        wait(lambda: ui.reviewTable.rowCount > 0)
        click(ui.nextRegionButton)
        click(ui.refineButton)
    elif section == "learn":
        ui.trainingFolderPath.currentPath = "Dataset001_Hippocampus"
        click(ui.saveCaseButton)
        wait(lambda: ui.saveCaseButton.enabled)
    elif section == "batch":
        click(ui.batchButton)
        queue = widget.panel.batch.queue
        wait(lambda: not queue.isActive)
    elif section == "more":
        for button in (ui.createVolumeButton, ui.measureButton):
            click(button)
            wait(lambda button=button: button.enabled)


def _picture(section):
    from headless_slicer import processEvents, qt

    panel = section.window()
    panel.resize(qt.QSize(PANEL_WIDTH, panel.sizeHint.height()))
    processEvents()
    return section.grab()


if __name__ == "__main__":
    sys.exit(main())
