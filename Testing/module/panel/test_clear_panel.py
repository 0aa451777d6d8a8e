"""What a person finds at once: one primary button in sight, models that can be told apart, one tool at a time, no clutter.

Sizes are those of the real widgets as the headless Slicer lays them out.
"""

import json
import shutil

import pytest
import scenes
from hosts import NO_TORCH, run_host

import headless_slicer
from headless_slicer import click, processEvents, qt
from tiny_model import make_tiny_package

LINES = 1080  # of the window
FURNITURE = 380  # of them for Slicer's title, menus, tool bars, module header, Data Probe and status bar
WIDTHS = (440, 520)  # pixels of a module panel
BUNDLED = sorted(each.name for each in (scenes.MODULE.parent / "Resources" / "Models").iterdir() if each.is_dir())
ROW_ROLE = qt.Qt.UserRole


@pytest.fixture
def sized(panel):
    """A function that gives the panel a width and the height that it needs then."""
    window = panel.ui.segmentButton.window()
    before = qt.QSize(window.size)

    def resize(width):
        for _ in range(6):  # a label's height depends on its width, and the panel's on those of its labels
            window.resize(qt.QSize(width, window.sizeHint.height()))
            processEvents()
        return window

    yield resize
    window.resize(before)


def bottom(widget, window):
    return widget.mapTo(window, qt.QPoint(0, widget.height)).y()


def rows(panel):
    model_list = panel.ui.modelList
    return [model_list.item(row) for row in range(model_list.count)]


def listed(panel):
    return [item.data(ROW_ROLE) for item in rows(panel)]


@pytest.fixture
def no_filter(panel):
    yield
    panel.ui.modelSearch.setText("")
    panel.ui.modalityComboBox.setCurrentIndex(0)


# ---- Segment


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("model", ["hippocampus-mr", "glioma-flair"])  # with one channel, and with three
def test_segment_is_in_sight_together_with_volume_and_models(panel, sized, model, width):
    scenes.choose(panel, model)
    window = sized(width)
    for widget in (panel.ui.inputVolumeSelector, panel.ui.modelSearch, panel.ui.modelList, panel.ui.segmentButton):
        assert widget.isVisible()
        assert bottom(widget, window) <= LINES - FURNITURE
    assert panel.ui.channel3Selector.isVisible() is (model == "glioma-flair")


def test_segment_is_the_one_primary_button(panel):
    import slicer

    children = slicer.util.findChildren(panel.ui.segmentButton.window(), className="QPushButton")
    buttons = [button for button in children if button.isVisible()]  # Slicer hides the panel of before a reload
    coloured = [button.name for button in buttons if "background-color" in button.styleSheet]
    assert coloured == ["segmentButton"]
    others = [button.height for button in buttons if button.name != "segmentButton"]
    assert panel.ui.segmentButton.height > max(others)


def test_while_it_runs_the_button_is_cancel_and_looks_like_any_other(panel):
    scenes.choose(panel, "slow")
    scenes.select(panel, scenes.add_volume(scenes.texture((48, 48, 48))))
    click(panel.ui.segmentButton)
    assert panel.ui.segmentButton.text == "Cancel" and not panel.ui.segmentButton.styleSheet
    click(panel.ui.segmentButton)
    processEvents(until=lambda: panel.job is None, timeout=60)
    assert panel.ui.segmentButton.text == "Segment" and "background-color" in panel.ui.segmentButton.styleSheet


# ---- the first screen


@pytest.fixture
def just_installed(environment, tmp_path):
    """The environment of a Slicer whose user has no models of their own yet."""
    return {**environment, "PROSMA_HOME": str(tmp_path / "home")}


def test_the_first_screen_has_no_red_text_and_no_empty_table(just_installed):
    facts = run_host(just_installed, "screen", "hippocampus-mr")
    assert facts["red"] == []
    assert facts["empty"] == []
    assert facts["open"] == ["inputCollapsibleButton"]
    assert facts["fit"] == "Choose a volume first, or try it on sample data."
    assert facts["models"] == BUNDLED


def test_nor_has_it_where_pytorch_is_missing(just_installed, tmp_path):
    (tmp_path / "engine" / "sitecustomize.py").write_text(NO_TORCH)
    facts = run_host(just_installed, "screen", "hippocampus-mr")
    assert "PyTorch" in facts["message"]
    assert facts["red"] == []


def test_red_text_would_have_been_found(panel):
    from host import is_red

    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 1))))
    assert "single slice" in panel.ui.fitLabel.text
    assert is_red(panel.ui.fitLabel) and not is_red(panel.ui.modelTitle)


def test_sections_open_when_there_is_something_to_show(panel):
    ui = panel.ui
    assert ui.resultCollapsibleButton.collapsed
    scenes.open_section(panel, "result")
    scenes.open_section(panel, "correct")
    shown = [ui.volumesTable, ui.correctTools, ui.sensitivityPage, ui.reviewPage, ui.editorPage, ui.reviewButtons]
    assert not [widget.name for widget in shown if widget.isVisible()]
    assert "Segment a volume" in ui.correctLabel.text and ui.correctLabel.isVisible()
    click(ui.resultCollapsibleButton)
    scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    assert not ui.resultCollapsibleButton.collapsed
    processEvents(until=lambda: ui.volumesTable.rowCount == 2)
    assert ui.volumesTable.isVisible() and ui.correctTools.isVisible()
    headless_slicer.closeScene()
    assert ui.resultCollapsibleButton.collapsed


# ---- models


def test_rows_of_models_are_equally_high_and_say_what_and_where(panel):
    assert {panel.ui.modelList.visualItemRect(item).height() for item in rows(panel)} == {42}
    assert {item.icon().availableSizes()[0].width() for item in rows(panel)} == {38}
    assert {item.icon().availableSizes()[0].height() for item in rows(panel)} == {38}
    texts = {item.data(ROW_ROLE): item.text().splitlines() for item in rows(panel)}
    assert texts["hippocampus-mr"] == [
        "Hippocampus (MR)",
        "T1-weighted MR: anterior hippocampus, posterior hippocampus",
    ]
    assert texts["polyp-colonoscopy"] == ["Polyp (colonoscopy)", "colour image (red, green, blue): polyp"]


def test_the_picture_of_a_row_is_the_middle_of_the_packages_preview(panel):
    (row,) = [item for item in rows(panel) if item.data(ROW_ROLE) == "prostate-t2"]
    shown = row.icon().pixmap(38, 38).toImage()
    preview = qt.QImage(str(scenes.MODULE.parent / "Resources/Models/prostate-t2/preview.png"))
    expected = preview.scaled(38, 38, qt.Qt.IgnoreAspectRatio, qt.Qt.SmoothTransformation)  # it is a square
    far = [
        abs(getattr(qt.QColor(shown.pixel(x, y)), part)() - getattr(qt.QColor(expected.pixel(x, y)), part)())
        for x in range(38)
        for y in range(38)
        for part in ("red", "green", "blue")
    ]
    assert max(far) <= 2


@pytest.mark.parametrize("model", BUNDLED)
def test_each_bundled_model_can_be_reached_by_scrolling_and_clicked(panel, model):
    scenes.read_models_again(panel)
    model_list = panel.ui.modelList
    (row,) = [item for item in rows(panel) if item.data(ROW_ROLE) == model]
    model_list.scrollToItem(row)
    processEvents()
    place = model_list.visualItemRect(row).center()
    assert model_list.viewport().rect.contains(place)
    qt.QTest.mouseClick(model_list.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, place)
    processEvents()
    assert panel._parameters.model == model
    # The rows of models for strokes say what they are for.
    names = {"strokes-3d": "Strokes in volumes", "strokes-2d": "Strokes in pictures"}
    assert panel.ui.modelTitle.text == names.get(model, row.text().splitlines()[0])


def test_the_list_has_one_height_whatever_it_holds(panel, no_filter):
    height = panel.ui.modelList.height
    qt.QTest.keyClicks(panel.ui.modelSearch, "polyp")
    processEvents()
    assert panel.ui.modelList.count == 2
    assert panel.ui.modelList.height == height


def test_models_are_filtered_by_kind_of_image_and_by_words(panel, no_filter):
    combo = panel.ui.modalityComboBox
    kinds = [combo.itemText(index) for index in range(combo.count)]
    assert kinds == ["All images", "CT", "MR", "US", "colour image", "photograph"]
    combo.setCurrentIndex(kinds.index("CT"))
    processEvents()
    assert listed(panel) == ["abdomen-ct", "head-neck-oar-ct", "tiny"], "the chosen model stays"
    combo.setCurrentIndex(kinds.index("colour image"))
    processEvents()
    assert listed(panel) == ["gland-histology", "polyp-colonoscopy", "tiny"]
    qt.QTest.keyClicks(panel.ui.modelSearch, "colon glands")
    processEvents()
    assert listed(panel) == ["gland-histology", "tiny"]
    combo.setCurrentIndex(0)
    processEvents()
    assert listed(panel) == ["gland-histology", "tiny"], "words alone"


def test_what_a_package_says_is_shown_letter_by_letter(panel, models):
    """Markup in a package, which would be shown as markup by a label, a tool tip and a message box."""
    loud = "<h1>LOUD</h1>"
    folder = models.home / "models" / "loud"
    texts = {"name": loud, "modality": loud, "description": f"{loud} <img src='x'>"}
    training = {"data": loud, "licence": loud, "citation": loud}
    make_tiny_package(folder, id="loud", labels=1, accept_licence=True, training=training, **texts)
    file = folder / "model.json"
    model = json.loads(file.read_text())
    model["labels"][0]["name"], model["channels"][0]["name"] = f"{loud} label", f"{loud} channel"
    file.write_text(json.dumps(model))
    try:
        panel.logic.library.refresh()
        panel._input.picker.fill()
        scenes.choose(panel, "loud")
        ui = panel.ui
        assert ui.modelTitle.text == loud
        assert {label.textFormat for label in (ui.modelTitle, ui.modelCard, ui.fitLabel, ui.messageLabel)} == {
            qt.Qt.PlainText
        }
        assert f"Licence: {loud}" in ui.modelCard.text and f"Segments: {loud} label" in ui.modelCard.text
        assert loud in ui.modelDetails.plainText and "<img src='x'>" in ui.modelDetails.plainText
        tip = ui.modelList.currentItem().toolTip()
        assert seen(tip) == f"{loud} <img src='x'>"
        scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
        headless_slicer.answer("No")
        click(ui.segmentButton)
        question = headless_slicer.messages[-1].text
        assert f"The model '{loud}' may be used only under this licence: {loud}" in seen(question)
    finally:
        shutil.rmtree(folder)
        panel.logic.library.refresh()
        panel._input.picker.fill()


def seen(text):
    """The letters that a person sees of a text which Qt shows as it guesses that it is meant."""
    from PySide6 import QtGui

    document = QtGui.QTextDocument()
    if QtGui.Qt.mightBeRichText(text):
        document.setHtml(text)
    else:
        document.setPlainText(text)
    return document.toPlainText()


def test_no_label_of_the_panel_takes_text_for_markup():
    from xml.etree import ElementTree

    tree = ElementTree.parse(scenes.MODULE.parent / "Resources/UI/ProSMASegmentation.ui")
    labels = [widget for widget in tree.iter("widget") if widget.get("class") == "QLabel"]
    formats = {
        label.get("name"): label.findtext("property[@name='textFormat']/enum", default="guessed") for label in labels
    }
    assert len(formats) > 30
    assert {*formats.values()} == {"Qt::PlainText"}


# ---- Correct


@pytest.mark.parametrize("width", WIDTHS)
def test_correct_shows_one_tool_at_a_time_in_at_most_700_pixels(panel, sized, width):
    ui = panel.ui
    scenes.segmented(panel, scenes.add_volume(scenes.texture((26, 28, 30))))
    pages = {"sensitivity": ui.sensitivityPage, "review": ui.reviewPage, "editor": ui.editorPage}
    for tool in pages:
        scenes.open_correct(panel, tool)
        if tool == "editor":
            click(ui.strokesButton)
        processEvents(until=lambda: panel._review._task is None, timeout=60)
        sized(width)
        assert [name for name, page in pages.items() if page.isVisible()] == [tool]
        assert ui.correctCollapsibleButton.height <= 700
        assert ui.correctCollapsibleButton.sizeHint.height() <= 700
        assert ui.reviewButtons.isVisible() is (tool != "sensitivity")
    assert ui.editorScrollArea.height > 300, "the editor has room"


def test_the_editors_keys_and_effects_work_only_while_it_is_in_sight(panel):
    ui = panel.ui
    if not ui.correctCollapsibleButton.collapsed:
        click(ui.correctCollapsibleButton)
    scenes.segmented(panel, scenes.add_volume(scenes.texture((26, 28, 30))))
    editor = ui.segmentEditor
    assert editor.keyboardShortcuts() == ()
    scenes.open_correct(panel, "editor")
    assert editor.keyboardShortcuts()
    click(ui.strokesButton)
    assert editor.activeEffect() is not None
    click(ui.reviewToolButton)
    assert editor.keyboardShortcuts() == () and editor.activeEffect() is None
    click(ui.editorToolButton)
    assert editor.keyboardShortcuts() and editor.activeEffect() is None
    click(ui.strokesButton)
    click(ui.correctCollapsibleButton)
    assert editor.keyboardShortcuts() == () and editor.activeEffect() is None


# ---- what is not for the daily path


def test_device_and_mirroring_are_under_more_with_the_remarks_on_the_device(panel):
    ui = panel.ui
    if not ui.moreCollapsibleButton.collapsed:
        click(ui.moreCollapsibleButton)
    assert not ui.deviceComboBox.isVisible() and not ui.mirrorCheckBox.isVisible()
    scenes.select(panel, scenes.add_volume(scenes.texture((24, 24, 24))))
    job = scenes.click_segment(panel)
    remarks = job.result["device_notices"]
    assert [remark for remark in remarks if "CUDA" in remark] == remarks
    assert ui.noticesLabel.text == ""
    scenes.open_section(panel, "more")
    assert ui.deviceComboBox.isVisible() and ui.mirrorCheckBox.isVisible()
    assert ui.deviceNoticesLabel.text == "\n".join(remarks)
    share = job.result["statistics"]["removed_share"]
    assert f"The gate removed {share:.0%} " in ui.gateLabel.text and ui.gateLabel.isVisible()
