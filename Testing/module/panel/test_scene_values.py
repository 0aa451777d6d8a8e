"""Values of a scene that are no usable choices: a sentence and the default, never a traceback."""

import typing

import pytest
import scenes

import headless_slicer
from headless_slicer import processEvents

SWITCHES = ("mirror", "keepLargestPart")
IMAGES = ("inputVolume", "channel2", "channel3", "channel4")
WRONG_SWITCHES = ("", "true", "1", "maybe", "x" * 5000, "<b>True</b>")


def raw(panel):
    return panel._parameters.parameterNode


def reloaded(panel, tmp_path):
    """Save the scene, close it, and open the file."""
    import slicer

    assert slicer.util.saveScene(str(tmp_path / "case.mrb"))
    headless_slicer.closeScene()
    slicer.util.loadScene(str(tmp_path / "case.mrb"))
    processEvents()


def foreign_node():
    import slicer

    return slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTextNode", "a text")


def test_every_declared_choice_has_a_rule(panel):
    from ProSMASegmentationLib.Logic import ParameterNode as declared

    names = set(typing.get_type_hints(declared.ParameterNode))
    nodes = {key.partition("_")[0] for key in declared.NODE_CLASSES}
    assert nodes | {*declared.SWITCHES} | {"model"} == names
    assert nodes.isdisjoint(declared.SWITCHES)


@pytest.mark.parametrize("value", WRONG_SWITCHES)
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_that_is_neither_on_nor_off(panel, name, value):
    raw(panel).SetParameter(name, value)
    processEvents()
    assert f"'{name}' was '{value[:60]}'" in panel.ui.messageLabel.text
    assert raw(panel).GetParameter(name) == "False"
    assert getattr(panel._parameters, name) is False


@pytest.mark.parametrize("name", [*(f"{image}_{member}" for image in IMAGES for member in (0, 1)), "roi"])
def test_a_node_of_another_kind(panel, name):
    raw(panel).SetNodeReferenceID(name, foreign_node().GetID())
    processEvents()
    assert f"'{name.partition('_')[0]}' was 'a text'" in panel.ui.messageLabel.text
    assert raw(panel).GetNodeReference(name) is None


def test_a_result_of_another_kind(panel):
    raw(panel).SetNodeReferenceID("outputSegmentation", foreign_node().GetID())
    processEvents()
    assert "'outputSegmentation' was 'a text'" in panel.ui.messageLabel.text
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    assert scenes.segmented(panel, volume) is panel.ui.outputSelector.currentNode()


def test_all_of_them_in_a_saved_scene(panel, tmp_path):
    node = raw(panel)
    panel.exit()  # as if another program had written the file
    text = foreign_node()
    for name in SWITCHES:
        node.SetParameter(name, "perhaps")
    for name in ("inputVolume_0", "channel2_1", "roi", "outputSegmentation"):
        node.SetNodeReferenceID(name, text.GetID())
    node.SetParameter("model", "a model of another computer")
    panel.enter()
    panel.exit()
    for name in SWITCHES:
        node.SetParameter(name, "perhaps")
    for name in ("inputVolume_0", "roi", "outputSegmentation"):
        node.SetNodeReferenceID(name, text.GetID())
    reloaded(panel, tmp_path)
    panel.enter()
    said = panel.ui.messageLabel.text
    for name in (*SWITCHES, "inputVolume", "roi", "outputSegmentation"):
        assert f"'{name}' was" in said
    assert len(said.splitlines()) == 5
    assert "'a model of another computer' is not installed here" in panel.ui.fitLabel.text
    assert not panel.ui.segmentButton.enabled
    scenes.choose(panel, "tiny")
    volume = scenes.add_volume(scenes.texture((24, 24, 24)))
    scenes.segmented(panel, volume)


def test_python_gets_the_defaults_too(panel):
    node = raw(panel)
    node.SetParameter("mirror", "yes")
    panel.exit()
    node.SetParameter("mirror", "yes")
    parameters = panel.logic.getParameterNode()
    assert parameters.mirror is False
    assert len(panel.logic.parameterProblems) == 1
    panel.enter()
