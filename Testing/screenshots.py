"""The pictures in README.md and Resources/Panel.md: the panel at work on the bundled sample. `make screenshots` runs it.

Beside them it writes what they were made of (pictures.py): a test fails when a model or the panel has changed since.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import demo
import pictures
import system_libraries

ROOT = Path(__file__).resolve().parents[1]
FOLDER, OVERVIEW = Path("Resources/Panel"), Path("Resources/screenshot.png")
MODULES = ("ProSMASegmentation", "SegmentEditorProSMAStrokes")
SECTIONS = ("input", "result", "correct", "learn", "batch", "more", "setup")
TOOLS = {"sensitivity": "sensitivity", "review": "review", "strokes": "editor"}  # pictures of Correct: its tools
PANEL_WIDTH = 500  # pixels
OVERVIEW_SIZE = (1360, 860)
MARGIN = 4  # pixels below Segment
MILLISECONDS_OF_FADING = 400  # of the button that empties the search
ROUNDS = 6  # a label's height depends on its width, and the panel's on those of its labels


def main() -> int:
    options = _options()
    lacking = system_libraries.notice()
    if lacking:
        print(lacking, file=sys.stderr)
        return 1
    import headless_slicer

    scratch = tempfile.TemporaryDirectory(prefix="prosma-screenshots-")
    os.chdir(scratch.name)  # where the section Learn saves its case
    *_, widget = (headless_slicer.loadModule(ROOT / "ProSMASegmentation" / f"{name}.py") for name in reversed(MODULES))
    try:
        made = _Pictures(headless_slicer, widget, options.output.resolve()).make()
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        headless_slicer.close()
        os.chdir(ROOT)
        scratch.cleanup()
    made.append(pictures.write_record(made, options.output.resolve()))
    for file in made:
        print(f"Written: {os.path.relpath(file)}")
    return 0


def _options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=ROOT, help="the folder that holds Resources/")
    return parser.parse_args()


class _Pictures:
    """The panel in a headless Slicer, and the pictures that were taken of it."""

    def __init__(self, headless_slicer, widget, output: Path) -> None:
        self.output = output
        self.slicer, self.widget, self.ui = headless_slicer, widget, widget.ui
        self.window = widget.ui.segmentButton.window()
        self.files: list[Path] = []

    def make(self) -> list[Path]:
        """Use the panel as a person does, section by section. OSError: a picture could not be made."""
        (self.output / FOLDER).mkdir(parents=True, exist_ok=True)
        engine = self.widget.panel.logic.engine
        self.wait(lambda: engine.state != engine.STARTING)
        self.take("first", self.top())
        demo.click_segment(self.slicer, self.widget)
        self.ui.modelSearch.setText("")
        self.ui.modelSearch.clearFocus()
        self.slicer.click(self.ui.moreModelButton)
        self.take("input", self.top())
        self.slicer.click(self.ui.moreModelButton)
        self.slicer.click(self.ui.show3DButton)
        self.overview()
        for section in SECTIONS[1:]:
            self.open_alone(section)
            getattr(self, section, lambda: None)()
            if section != "correct":
                self.take(section, self.picture_of(section))
        return self.files

    def wait(self, until) -> None:
        self.slicer.processEvents(until=until, timeout=demo.SECONDS_TO_SEGMENT)

    def open_alone(self, section: str) -> None:
        for name in SECTIONS:
            getattr(self.ui, f"{name}CollapsibleButton").collapsed = name != section
        self.slicer.processEvents()

    # ---- what a section is for

    def result(self) -> None:
        self.wait(lambda: self.ui.volumesTable.rowCount == 2)

    def correct(self) -> None:
        for name, tool in TOOLS.items():
            self.slicer.click(getattr(self.ui, f"{tool}ToolButton"))
            if name == "review":
                review = self.widget.panel._review
                self.wait(lambda review=review: self.ui.reviewTable.rowCount > 0 and review._task is None)
                self.slicer.click(self.ui.nextRegionButton)
            elif name == "strokes":
                self.slicer.click(self.ui.strokesButton)
            self.take(name, self.picture_of("correct"))

    def learn(self) -> None:
        self.ui.trainingFolderPath.currentPath = "Dataset001_Hippocampus"
        self.slicer.click(self.ui.saveCaseButton)
        self.wait(lambda: self.ui.saveCaseButton.enabled)

    def batch(self) -> None:
        self.slicer.click(self.ui.batchButton)
        queue = self.widget.panel.batch.queue
        self.wait(lambda: not queue.isActive)

    def more(self) -> None:
        for button in (self.ui.createVolumeButton, self.ui.measureButton):
            self.slicer.click(button)
            self.wait(lambda button=button: button.enabled)

    # ---- pictures

    def top(self):
        """The panel down to Segment."""
        from headless_slicer import qt

        self.fit()
        qt.QTest.qWait(MILLISECONDS_OF_FADING)
        button = self.ui.segmentButton
        bottom = button.mapTo(self.window, qt.QPoint(0, button.height)).y()
        return self.window.grab(qt.QRect(0, 0, PANEL_WIDTH, bottom + MARGIN))

    def picture_of(self, section: str):
        self.fit()
        return getattr(self.ui, f"{section}CollapsibleButton").grab()

    def overview(self) -> None:
        """The panel beside the views."""
        from headless_slicer import views

        self.wait(lambda: self.ui.volumesTable.rowCount == 2)
        self.fit()
        file = self.output / OVERVIEW
        before = _content(file)
        drawn = views.screenshot(file, panel=self.widget.parent, size=OVERVIEW_SIZE)
        if not drawn:
            raise OSError(drawn.reason)
        pictures.settle(file, before)
        self.files.append(file)

    def fit(self) -> None:
        """Give the panel its width and the height that it needs then."""
        from headless_slicer import qt

        for _ in range(ROUNDS):
            self.window.resize(qt.QSize(PANEL_WIDTH, self.window.sizeHint.height()))
            self.slicer.processEvents()

    def take(self, name: str, picture) -> None:
        file = self.output / FOLDER / f"{name}.png"
        before = _content(file)
        if not picture.save(str(file), "PNG", 0):  # 0: as small as it gets
            raise OSError(f"{file} could not be written")
        pictures.settle(file, before)
        self.files.append(file)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


if __name__ == "__main__":
    sys.exit(main())
