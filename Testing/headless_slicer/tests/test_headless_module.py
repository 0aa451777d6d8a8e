"""An unchanged scripted module, clicked: panel, parameter node, processes, life in the application."""

import enum
import pathlib
import sys
from typing import Annotated, Optional

import numpy as np
import pytest

import headless_slicer
from headless_slicer import real


def choose(panel, slicer, volume):
    """Chooses the input and makes the output with the selectors, as a person would."""
    panel.ui.inputSelector.setCurrentNode(volume)
    panel.ui.outputSelector.addNode()


def test_module_and_panel_are_where_slicer_has_them(slicer, panel):
    assert slicer.modules.brightener.title == "Brightener"
    assert slicer.util.getModuleWidget("Brightener") is panel is slicer.modules.BrightenerWidget
    assert slicer.util.getModuleLogic("Brightener") is panel.logic
    assert slicer.util.selectedModule() == "Brightener"
    assert panel.parent.isEntered and panel.parent.isVisible()
    assert "Brightener" in slicer.selfTests


def test_apply_is_enabled_when_both_nodes_are_chosen(slicer, panel, volume):
    assert not panel.ui.applyButton.enabled
    choose(panel, slicer, volume)
    assert panel.ui.applyButton.enabled
    panel.ui.outputSelector.setCurrentNode(None)
    assert not panel.ui.applyButton.enabled


def test_click_computes(slicer, panel, volume):
    choose(panel, slicer, volume)
    panel.ui.amountSlider.value = 12.5
    headless_slicer.click(panel.ui.applyButton)
    output = slicer.util.arrayFromVolume(panel.ui.outputSelector.currentNode())
    np.testing.assert_array_equal(output, slicer.util.arrayFromVolume(volume) + 12.5)


def test_failure_is_shown_and_raised(slicer, panel, volume):
    choose(panel, slicer, volume)
    panel._parameterNode.amount = 0.0
    with pytest.raises(headless_slicer.SlotError, match="nothing to add"):
        headless_slicer.click(panel.ui.applyButton)
    assert "nothing to add" in headless_slicer.messages[0].text


def test_widgets_and_parameters_follow_each_other(slicer, panel):
    ui, parameters = panel.ui, panel._parameterNode
    headless_slicer.click(ui.advancedCollapsibleButton)
    headless_slicer.click(ui.invertCheckBox)
    ui.repeatSpinBox.value = 3
    ui.modeBox.currentIndex = 1
    ui.qualityBox.currentText = "fine"
    ui.commentEdit.text = "words"
    ui.lowSpinBox.value = -7.5
    got = (parameters.invert, parameters.repeat, parameters.mode.name, parameters.quality, parameters.comment)
    assert got == (True, 3, "SUBTRACT", "fine", "words")
    assert parameters.limits.low == -7.5
    parameters.amount, parameters.invert, parameters.limits.low = 33.0, False, 4.5
    parameters.quality = "draft"
    assert (ui.amountSlider.value, ui.invertCheckBox.checked, ui.lowSpinBox.value) == (33.0, False, 4.5)
    assert (ui.qualityBox.currentText, ui.modeBox.itemText(0)) == ("draft", "Add")
    assert (ui.repeatSpinBox.minimum, ui.repeatSpinBox.maximum) == (1, 9)


def test_disconnected_panel_changes_nothing(slicer, panel):
    parameters = panel._parameterNode
    panel.exit()
    panel.ui.amountSlider.value = 1.0
    assert parameters.amount == 100.0


def test_parameters_survive_the_scene(slicer, panel, volume, tmp_path):
    choose(panel, slicer, volume)
    mode = type(panel._parameterNode.mode)
    parameters = panel._parameterNode
    parameters.amount, parameters.mode, parameters.names, parameters.note = 7.25, mode.SUBTRACT, ["a", "b"], "x"
    parameters.limits.high = 12.0
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    headless_slicer.newScene()
    panel.enter()
    assert (panel._parameterNode.amount, panel._parameterNode.inputVolume, panel._parameterNode.note) == (
        100,
        None,
        None,
    )
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    read = panel.logic.getParameterNode()
    assert (read.amount, read.mode, list(read.names), read.note) == (7.25, mode.SUBTRACT, ["a", "b"], "x")
    assert (read.inputVolume.GetName(), read.outputVolume.GetName(), read.limits.high) == ("Ramp", "Bright", 12.0)
    assert read.parameterNode.GetParameter("amount") == "7.25"
    assert read.parameterNode.GetParameter("limits.high") == "12.0"
    assert read.parameterNode.GetParameter("mode") == "SUBTRACT"


def test_closing_the_scene_empties_the_selectors(slicer, panel, volume):
    choose(panel, slicer, volume)
    headless_slicer.closeScene()
    assert panel.ui.inputSelector.currentNode() is None
    assert panel._parameterNode.inputVolume is None
    assert not panel.ui.applyButton.enabled


def test_process_reports_to_the_panel(slicer, panel):
    headless_slicer.click(panel.ui.processButton)
    headless_slicer.processEvents(until=lambda: panel.ui.statusLabel.text)
    assert panel.ui.statusLabel.text == "finished"
    assert panel.lines == ["line 0", "line 1", "line 2"]


def test_unloading_calls_cleanup_and_frees_the_scene(slicer, volume):
    widget = headless_slicer.loadModule(pathlib.Path(__file__).parent / "module" / "Brightener.py")
    assert widget.Observations
    headless_slicer.unloadModule("Brightener")
    assert not widget.Observations
    assert not hasattr(slicer.modules, "brightener")
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    headless_slicer.processEvents()


def test_reload_makes_a_new_panel(slicer, panel, volume):
    panel.onReload()
    fresh = slicer.modules.BrightenerWidget
    assert fresh is not panel and not panel.Observations
    assert slicer.util.getModuleWidget("Brightener") is fresh
    choose(fresh, slicer, volume)
    headless_slicer.click(fresh.ui.applyButton)
    assert slicer.util.arrayFromVolume(fresh.ui.outputSelector.currentNode()).min() == 100


def test_self_test_runs_and_its_failure_is_seen(slicer, panel):
    testClass = sys.modules["Brightener"].BrightenerTest
    headless_slicer.runTest(testClass)
    slicer.selfTests["Brightener"]()
    testClass.fails = True
    with pytest.raises(AssertionError, match="-1"):
        headless_slicer.runTest(testClass)


def test_ui_file_with_unknown_widget_is_refused(slicer, tmp_path):
    path = tmp_path / "unknown.ui"
    path.write_text(
        '<ui version="4.0"><widget class="ctkFancyThing" name="a"/><customwidgets><customwidget>'
        "<class>ctkFancyThing</class><extends>QWidget</extends></customwidget></customwidgets></ui>"
    )
    with pytest.raises(RuntimeError, match="ctkFancyThing"):
        slicer.util.loadUI(str(path))


def test_ui_file_with_unknown_property_is_refused(slicer, tmp_path):
    path = tmp_path / "unknown.ui"
    path.write_text(
        '<ui version="4.0"><widget class="ctkComboBox" name="a"><property name="novel"><bool>true</bool></property>'
        "</widget><customwidgets><customwidget><class>ctkComboBox</class><extends>QComboBox</extends></customwidget>"
        "</customwidgets></ui>"
    )
    with pytest.raises(RuntimeError, match="novel"):
        slicer.util.loadUI(str(path))


class Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


def makeWrapper(slicer):
    from slicer.parameterNodeWrapper import Minimum, WithinRange, parameterNodeWrapper

    @parameterNodeWrapper
    class Wrapper:
        number: Annotated[int, WithinRange(0, 5)] = 2
        least: Annotated[float, Minimum(1.0)] = 1.5
        side: Side = Side.RIGHT
        folder: pathlib.Path
        node: Optional[slicer.vtkMRMLModelNode]  # noqa: UP045

    return Wrapper(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def test_parameters_have_defaults_and_types(slicer):
    wrapper = makeWrapper(slicer)
    assert (wrapper.number, wrapper.least, wrapper.side, wrapper.node) == (2, 1.5, Side.RIGHT, None)
    model = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLModelNode")
    wrapper.node, wrapper.folder = model, pathlib.Path("here")
    assert wrapper.node is model and wrapper.folder == pathlib.Path("here")
    slicer.mrmlScene.RemoveNode(model)
    assert wrapper.node is None


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("number", 6, ValueError),
        ("number", 1.5, TypeError),
        ("number", None, ValueError),
        ("least", 0.5, ValueError),
        ("side", "LEFT", TypeError),
        ("folder", "here", TypeError),
    ],
)
def test_wrong_values_are_refused(slicer, name, value, error):
    wrapper = makeWrapper(slicer)
    before = getattr(wrapper, name)
    with pytest.raises(error):
        setattr(wrapper, name, value)
    assert getattr(wrapper, name) == before


@pytest.mark.skipif(real.source() is not None, reason="Slicer 5.12 refuses it, as the stand-in does; 5.13 takes it")
def test_types_that_an_older_slicer_refuses_are_refused(slicer):
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    with pytest.raises(TypeError, match=r"typing\.Optional"):

        @parameterNodeWrapper
        class Bar:
            text: str | None


def test_names_that_slicer_refuses_are_refused(slicer):
    from slicer.parameterNodeWrapper import parameterNodeWrapper

    with pytest.raises(ValueError, match="reserved"):

        @parameterNodeWrapper
        class Reserved:
            default: int


def test_widget_of_the_wrong_class_is_refused(slicer):
    import qt

    wrapper = makeWrapper(slicer)
    with pytest.raises(RuntimeError, match="QLineEdit"):
        wrapper.connectParametersToGui({"number": qt.QLineEdit()})
    with pytest.raises(ValueError, match=r"param with the given name: numbers"):
        wrapper.connectParametersToGui({"numbers": qt.QSpinBox()})
