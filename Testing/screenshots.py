"""The pictures in Resources/Panel.md: each section of the panel after a run on the bundled sample. `make screenshots` runs it."""

import argparse
import sys
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

    *_, widget = (headless_slicer.loadModule(ROOT / "ProSMASegmentation" / f"{name}.py") for name in reversed(MODULES))
    try:
        demo.click_segment(headless_slicer, widget)
        for section in SECTIONS:
            _open_alone(headless_slicer, widget.ui, section)
            if section == "correct":
                _look_at_the_first_place(headless_slicer, widget)
            file = options.output / f"{section}.png"
            if not _picture(getattr(widget.ui, f"{section}CollapsibleButton")).save(str(file)):
                print(f"{file} could not be written", file=sys.stderr)
                return 1
            print(f"Written: {file.name}")
    finally:
        headless_slicer.close()
    return 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT / "Resources" / "Panel", help="folder for the pictures")
    return parser.parse_args()


def _open_alone(headless_slicer, ui, section: str) -> None:
    for name in SECTIONS:
        getattr(ui, f"{name}CollapsibleButton").collapsed = name != section
    headless_slicer.processEvents()


def _look_at_the_first_place(headless_slicer, widget) -> None:
    table = widget.ui.reviewTable
    headless_slicer.processEvents(until=lambda: table.rowCount > 0, timeout=demo.SECONDS_TO_SEGMENT)
    headless_slicer.click(widget.ui.nextRegionButton)
    headless_slicer.click(widget.ui.refineButton)


def _picture(section):
    from headless_slicer import processEvents, qt

    panel = section.window()
    panel.resize(qt.QSize(PANEL_WIDTH, panel.sizeHint.height()))
    processEvents()
    return section.grab()


if __name__ == "__main__":
    sys.exit(main())
