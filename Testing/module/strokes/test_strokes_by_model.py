"""The effect ProSMA Strokes with a model that answers (random weights, the real engine): what the panel makes of strokes is
what Python and the command line make of them, byte by byte."""

import numpy as np
import pytest
import scenes
from phantom import MISSING, Ball, shown

from headless_slicer import click, processEvents, strokes
from prosma import Image, Prompts, Segmenter
from prosma.cli import main
from prosma.image.reading import read_labels
from remedies import tries


def answered(effect):
    """Wait until the model has answered."""
    processEvents(until=lambda: not effect.isBusy, timeout=120)
    processEvents()


def start(ball, answerer="Model"):
    effect = ball.start()
    effect.radiusSlider.value = 2.0
    if effect.answererButtons[answerer].enabled:
        click(effect.answererButtons[answerer])
    return effect


def new_segment(ball):
    """Select a new segment, which takes nothing from the others."""
    node = ball.editor.mrmlSegmentEditorNode()
    node.SetOverwriteMode(node.OverwriteNone)
    segment_id = ball.node.GetSegmentation().AddEmptySegment("new", "new")
    ball.editor.setCurrentSegmentID(segment_id)
    processEvents()
    return segment_id


def image_of(volume):
    """The volume as Python has it."""
    import slicer
    import vtk

    array = slicer.util.arrayFromVolume(volume)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    return Image(channels.transpose(0, 3, 2, 1), slicer.util.arrayFromVTKMatrix(matrix))


def by_python(package, image, mask, **said):
    """The mask (K, J, I) that `Segmenter.prompt` makes; arrays (K, J, I)."""
    prompts = {name: None if array is None else array.T for name, array in said.items()}
    return Segmenter(package, "cpu").prompt(image, Prompts(mask=mask.T, **prompts)).on(mask.T).T


def marks(effect, what=1):
    return effect._session._marks == what


def test_the_panel_python_and_the_command_line_make_the_same_of_strokes(ball, install, tmp_path):
    import slicer

    package, effect = install(), start(ball)
    assert "'Strokes' answers" in effect.answerLabel.text
    ball.draw(*MISSING)
    answered(effect)
    assert np.array_equal(ball.voxels(), ball.cut), "a preview writes nothing"
    added, removed = shown(ball, "added"), shown(ball, "removed")
    first = marks(effect).copy()
    expected = by_python(package, image_of(ball.volume), ball.cut, add=first)
    assert first[18, 14, 15:18].all() and (expected != (ball.cut | first)).any(), "the network did something"
    click(effect.applyButton)
    assert np.array_equal(ball.voxels(), expected)
    assert np.array_equal(added, expected & ~ball.cut) and np.array_equal(removed, ball.cut & ~expected)
    ball.draw((15, 14, 8), shift=True)
    answered(effect)
    second = marks(effect, 2).copy()
    click(effect.applyButton)
    later = by_python(package, image_of(ball.volume), expected, remove=second, earlier_add=first)
    assert np.array_equal(ball.voxels(), later) and not ball.voxels()[second].any()

    files = {"add": first, "mask": ball.cut, "remove": second, "later": expected}
    for name, array in files.items():
        node = scenes.add_volume(array.astype(np.uint8), name, scenes.oblique())
        slicer.util.saveNode(node, str(tmp_path / f"{name}.nrrd"))
    slicer.util.saveNode(ball.volume, str(tmp_path / "scan.nrrd"))
    path = {name: str(tmp_path / f"{name}.nrrd") for name in (*files, "scan", "one", "two")}
    prompt = ["prompt", path["scan"], "-m", str(package.folder)]
    assert main([*prompt, "--add", path["add"], "--mask", path["mask"], "-o", path["one"]]) == 0
    earlier = ["--earlier-add", path["add"], "--mask", path["later"]]
    assert main([*prompt, "--remove", path["remove"], *earlier, "-o", path["two"]]) == 0
    for name, mask in (("one", expected), ("two", later)):
        again = read_labels(path[name]).array[0].T
        assert np.array_equal(again, mask)


def test_by_itself_the_model_answers_what_strokes_began_and_leaves_other_masks_to_refine(ball, install):
    package, effect = install(), start(ball, "Automatic")
    assert "border of this mask" in effect.answerLabel.text and effect.toolButtons["Box"].enabled
    ball.draw(*MISSING)
    assert effect.applyButton.enabled and not effect.isBusy, "Refine has answered"
    click(effect.cancelButton)
    strokes.key("o")
    ball.draw((8, 9, 15), (20, 25, 15))
    assert effect.isBusy, "a box is the model's"
    answered(effect)
    click(effect.cancelButton)
    strokes.key("s")

    new = new_segment(ball)
    assert "'Strokes' answers" in effect.answerLabel.text
    masks = [np.zeros(ball.SHAPE, bool)]
    for voxels in (MISSING, [(15, 14, 8), (17, 14, 8)]):
        ball.draw(*voxels)
        answered(effect)
        click(effect.applyButton)
        masks.append(ball.voxels(new))
    first, both = masks[0].copy(), marks(effect)
    first[18] = both[18]
    image = image_of(ball.volume)
    assert np.array_equal(masks[1], by_python(package, image, masks[0], add=first))
    assert np.array_equal(masks[2], by_python(package, image, masks[1], add=both & ~first, earlier_add=first))

    ball.editor.setCurrentSegmentID(ball.a)
    processEvents()
    assert "border of this mask" in effect.answerLabel.text


def test_a_segment_that_strokes_began_is_the_models_again_after_it_was_saved(ball, install, tmp_path):
    import slicer

    install()
    effect = start(ball, "Automatic")
    new = new_segment(ball)
    ball.draw(*MISSING)
    answered(effect)
    click(effect.applyButton)
    slicer.util.saveNode(ball.node, str(tmp_path / "mine.seg.nrrd"))
    ball.node = slicer.util.loadSegmentation(str(tmp_path / "mine.seg.nrrd"))
    ball.panel.ui.outputSelector.setCurrentNode(ball.node)
    processEvents()
    effect = start(ball, "Automatic")
    for segment_id, text in ((new, "'Strokes' answers"), (ball.a, "border of this mask")):
        ball.editor.setCurrentSegmentID(segment_id)
        processEvents()
        assert text in effect.answerLabel.text


def test_who_wants_the_border_moved_is_not_answered_by_the_model(ball, install):
    install()
    effect = start(ball, "Border")
    assert "move the border" in effect.answerLabel.text and not effect.toolButtons["Lasso"].enabled
    new_segment(ball)
    ball.draw(*MISSING)
    assert effect.applyButton.enabled and not effect.isBusy


def test_a_new_stroke_takes_the_place_of_the_running_one_and_loses_nothing(ball, install):
    package, effect = install(), start(ball)
    ball.draw(*MISSING)
    assert effect.isBusy and "at work" in effect.messageLabel.text and not effect.applyButton.enabled
    ball.draw((15, 14, 8), shift=True)
    answered(effect)
    said = {"add": marks(effect), "remove": marks(effect, 2)}
    assert said["add"].any() and said["remove"].any()
    click(effect.applyButton)
    assert np.array_equal(ball.voxels(), by_python(package, image_of(ball.volume), ball.cut, **said))
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), ball.cut), "one answer is one undo step"


def test_each_answered_stroke_is_an_undo_step_and_the_last_can_be_taken_back(ball, install):
    install()
    effect, masks = start(ball), []
    for voxels, remove in ((MISSING, False), ([(15, 14, 8)], True), ([(22, 14, 13)], True)):
        ball.draw(*voxels, shift=remove)
        answered(effect)
        masks.append(effect._session._mask.copy())
    assert not np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[1], masks[2])
    strokes.key("u")
    assert np.array_equal(effect._session._mask, masks[1])
    assert not marks(effect, 2)[13, 14, 22]
    strokes.key("Return")
    assert np.array_equal(ball.voxels(), masks[1])
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), masks[0])
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), ball.cut)
    ball.draw(*MISSING)
    strokes.key("u")
    assert not effect.isBusy and not effect.takeBackButton.enabled
    processEvents()
    assert ball.preview() == []


def test_a_script_is_told_that_a_box_lies_in_a_slice(ball):
    effect = start(ball)
    with pytest.raises(ValueError, match="give the slice view that it is drawn in"):
        effect.stroke([(8.0, 9.0, 15.0), (20.0, 25.0, 15.0)], tool="Box")
    assert ball.preview() == []


def test_applied_at_once_an_answer_is_an_undo_step(ball, install):
    package, effect = install(), start(ball)
    click(effect.atOnceCheckBox)
    ball.draw(*MISSING)
    answered(effect)
    assert np.array_equal(ball.voxels(), by_python(package, image_of(ball.volume), ball.cut, add=marks(effect)))
    assert ball.preview() == []
    ball.editor.undo()
    assert np.array_equal(ball.voxels(), ball.cut)
    click(effect.atOnceCheckBox)


def test_what_one_paints_is_previewed_before_the_button_is_let_go(ball, install):
    install()
    effect = start(ball)
    ball.draw(*MISSING, release=False)
    answered(effect)
    assert ball.preview() and not effect._session.hasChanges
    ball.draw(MISSING[-1])
    answered(effect)
    assert effect._session.hasChanges


def test_from_nothing_the_picker_leads_to_a_first_stroke_that_makes_the_segment(panel, install):
    package = install()
    volume = scenes.add_volume(scenes.texture((30, 34, 38)))
    scenes.select(panel, volume)
    rows = [panel.ui.modelList.item(row).text() for row in range(panel.ui.modelList.count)]
    assert any(row.startswith("Segment anything by strokes\nany volume") for row in rows)
    scenes.choose(panel, package.id)
    assert panel.ui.segmentButton.text == "Start strokes" and panel.ui.segmentButton.enabled
    click(panel.ui.segmentButton)
    processEvents()
    node = panel.ui.outputSelector.currentNode()
    assert node.GetSegmentation().GetNumberOfSegments() == 0
    effect = panel.ui.segmentEditor.activeEffect().self()
    effect.radiusSlider.value = 2.0
    strokes.draw([(18.0, 17.0, 15.0), (24.0, 17.0, 15.0)], shift=True)
    assert "no segment to take anything from" in effect.messageLabel.text
    strokes.draw([(18.0, 17.0, 15.0), (24.0, 17.0, 15.0)])
    answered(effect)
    click(effect.applyButton)
    (segment_id,) = scenes.segment_ids(node)
    mask = scenes.voxels(node, segment_id, volume) > 0
    assert np.array_equal(mask, by_python(package, image_of(volume), np.zeros_like(mask), add=marks(effect)))
    assert mask[15, 17, 18:25].all()
    click(panel.ui.segmentButton)
    processEvents()
    assert len(scenes.segment_ids(node)) == 2, "another structure is another segment"
    scenes.choose(panel, "tiny")
    assert panel.ui.segmentButton.text == "Segment"


def test_a_box_and_a_lasso_say_where_the_object_lies(panel, install):
    package = install()
    volume = scenes.add_volume(scenes.texture((30, 34, 38)))
    scenes.select(panel, volume)
    scenes.choose(panel, package.id)
    click(panel.ui.segmentButton)
    effect = panel.ui.segmentEditor.activeEffect().self()
    strokes.move((18.0, 17.0, 15.0))
    strokes.key("o")
    assert effect.toolButtons["Box"].checked
    strokes.draw([(8.0, 9.0, 15.0), (20.0, 25.0, 15.0)])
    answered(effect)
    region = np.zeros((30, 34, 38), bool)
    region[15, 9:26, 8:21] = True
    found = whole(effect._session._region, region.shape)
    edge = region ^ _shrunk(region)
    assert found[_shrunk(region)].all() and not found[~region & ~_widened(region)].any() and edge.any()
    click(effect.applyButton)
    (segment_id,) = scenes.segment_ids(panel.ui.outputSelector.currentNode())
    mask = scenes.voxels(panel.ui.outputSelector.currentNode(), segment_id, volume) > 0
    assert np.array_equal(mask, by_python(package, image_of(volume), np.zeros_like(mask), region=found))
    click(effect.toolButtons["Lasso"])
    corners = [(25.0, 25.0, 20.0), (33.0, 25.0, 20.0), (29.0, 31.0, 20.0)]
    strokes.draw(corners, view="Red")
    answered(effect)
    both = whole(effect._session._region, region.shape)
    assert both[found].all() and both[20, 27, 29] and not both[20, 30, 26] and not both[20, 30, 32]
    strokes.key("p")
    assert effect.tool == "Point"
    strokes.draw([(5.0, 5.0, 5.0), (9.0, 5.0, 5.0)])
    answered(effect)
    assert marks(effect).sum() == 1 and marks(effect)[5, 5, 5]


def whole(part, shape):
    box, array = part
    result = np.zeros(shape, bool)
    result[tuple(slice(*side) for side in box)] = array
    return result


def _shrunk(region):
    from scipy.ndimage import binary_erosion

    return binary_erosion(region, np.ones((1, 3, 3)))


def _widened(region):
    from scipy.ndimage import binary_dilation

    return binary_dilation(region, np.ones((1, 3, 3)))


@pytest.mark.parametrize("colours", [0, 3])
def test_pictures_with_and_without_colours(panel, install, colours):
    package = install(2, channels=3)
    array = scenes.texture((1, 40, 50))
    if colours:
        array = np.stack([array, array[:, ::-1], array[:, :, ::-1]], -1)
    volume = scenes.add_volume(array, "picture", vector=bool(colours))
    scenes.select(panel, volume)
    scenes.choose(panel, package.id)
    assert panel.ui.segmentButton.enabled, panel.ui.fitLabel.text
    click(panel.ui.segmentButton)
    effect = panel.ui.segmentEditor.activeEffect().self()
    effect.radiusSlider.value = 2.0
    strokes.draw([(18.0, 17.0, 0.0), (24.0, 17.0, 0.0)])
    answered(effect)
    click(effect.applyButton)
    node = panel.ui.outputSelector.currentNode()
    mask = scenes.voxels(node, scenes.segment_ids(node)[0], volume) > 0
    assert mask[0, 17, 18:25].all()
    assert np.array_equal(mask, by_python(package, image_of(volume), np.zeros_like(mask), add=marks(effect)))
    scenes.select(panel, scenes.add_volume(scenes.texture((20, 24, 28))))
    assert "this is a volume" in panel.ui.fitLabel.text and not panel.ui.segmentButton.enabled


def test_of_a_volume_with_several_values_a_voxel_the_clearest_is_taken(panel, install):
    package = install()
    arrays = [scenes.texture((20, 24, 28), seed) for seed in range(2)]
    arrays[1][10, 11:13, 8:20] += 3000
    volume = scenes.add_volume(np.stack(arrays, -1), "two", vector=True)
    scenes.select(panel, volume)
    scenes.choose(panel, package.id)
    click(panel.ui.segmentButton)
    effect = panel.ui.segmentEditor.activeEffect().self()
    effect.radiusSlider.value = 0.5
    strokes.draw([(10.0, 11.0, 10.0), (18.0, 11.0, 10.0)])
    answered(effect)
    assert "channel 2" in effect.messageLabel.text
    assert np.array_equal(
        effect._session._mask,
        by_python(package, image_of(volume), np.zeros(arrays[0].shape, bool), add=marks(effect)),
    )


def test_a_models_log_odds_go_to_the_network_that_corrects_its_result(panel, install):
    from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities

    volume = scenes.add_volume(scenes.texture((26, 28, 30)))
    node = scenes.segmented(panel, volume)
    package = install()
    segment_id = scenes.segment_ids(node)[0]
    scenes.open_correct(panel, "editor")
    panel.ui.segmentEditor.setCurrentSegmentID(segment_id)
    processEvents()
    click(panel.ui.strokesButton)
    effect = panel.ui.segmentEditor.activeEffect().self()
    click(effect.answererButtons["Model"])
    before = scenes.voxels(node, segment_id, volume) > 0
    kept = KeptProbabilities.shared().of(node, node.GetSegmentation().GetSegment(segment_id))
    (i, j, k), label = kept.offset, int(scenes.tag(node, segment_id, "ProSMA.label"))
    share = np.zeros(before.shape, np.float64)
    part = np.asarray(kept.probabilities[label], np.float64)
    share[tuple(slice(n, n + size) for n, size in zip((k, j, i), part.shape, strict=True))] = part
    (i0, i1), (j0, j1), (k0, k1) = kept.reach[label - 1]
    odds = np.full(before.shape, -6.0, np.float16)
    reached = (share[k0:k1, j0:j1, i0:i1] + 0.5) / 256
    odds[k0:k1, j0:j1, i0:i1] = np.log(reached / (1 - reached)).astype(np.float32)
    strokes.draw([(14.0, 14.0, 13.0), (16.0, 14.0, 13.0)])
    answered(effect)
    click(effect.applyButton)
    after, add = scenes.voxels(node, segment_id, volume) > 0, marks(effect)
    assert np.array_equal(after, by_python(package, image_of(volume), before, add=add, log_odds=odds))
    without = by_python(package, image_of(volume), before, add=add)
    assert not np.array_equal(after, without), "they make a difference"


def test_masking_and_locked_segments_hold_for_the_models_answers_too(ball, install):
    install()
    b = ball.add("B", ball.truth & ~ball.cut)
    effect = start(ball)
    node = ball.editor.mrmlSegmentEditorNode()
    node.SetMaskMode(ball.node.EditAllowedOutsideAllSegments)
    ball.draw(*MISSING)
    answered(effect)
    click(effect.applyButton)
    assert not (ball.voxels() & ball.truth & ~ball.cut).any() and not np.array_equal(ball.voxels(), ball.cut)
    node.SetMaskMode(ball.node.EditAllowedEverywhere)
    ball.editor.setCurrentSegmentID(b)
    processEvents()
    click(ball.ui.lockCheckBox)
    ball.draw(*MISSING)
    assert "locked" in effect.messageLabel.text and not effect.isBusy
    ball.editor.setCurrentSegmentID(ball.a)
    processEvents()
    ball.draw(*MISSING)
    answered(effect)
    if effect.applyButton.enabled:
        click(effect.applyButton)
    assert np.array_equal(ball.voxels(b), ball.truth & ~ball.cut), "nothing is taken from a locked segment"


def test_an_answer_to_a_segment_that_was_changed_meanwhile_is_discarded_in_words(ball, install):
    import slicer

    install()
    effect = start(ball)
    ball.draw(*MISSING)
    edited = ball.cut.copy()
    edited[0, 0, :4] = True
    slicer.util.updateSegmentBinaryLabelmapFromArray(edited.astype(np.uint8), ball.node, ball.a, ball.volume)
    answered(effect)
    assert "discarded" in effect.messageLabel.text and not effect.applyButton.enabled
    assert np.array_equal(ball.voxels(), edited)


def test_a_package_that_is_gone_is_said_and_the_next_stroke_is_answered_by_refine(ball, install):
    package, effect = install(), start(ball)
    package.weights_path.write_bytes(b"broken")
    ball.draw(*MISSING)
    answered(effect)
    assert "weights" in effect.messageLabel.text
    assert not effect.applyButton.enabled and not effect._session.isWaiting
    scenes.keep_models_for_strokes(ball.panel, package.id)
    ball.draw(*MISSING)
    assert "No model for strokes in volumes" in effect.answerLabel.text
    assert effect.applyButton.enabled
    assert not effect.toolButtons["Box"].enabled


def test_a_model_for_strokes_runs_only_under_its_licence(ball, install):
    import headless_slicer

    package, effect = install(accept_licence=True), start(ball)
    headless_slicer.answer("No")
    ball.draw(*MISSING)
    assert effect.applyButton.enabled and not effect.isBusy, "Refine has answered"
    click(effect.cancelButton)
    headless_slicer.answer("Yes")
    ball.draw(*MISSING)
    answered(effect)
    add = marks(effect)
    click(effect.applyButton)
    assert np.array_equal(ball.voxels(), by_python(package, image_of(ball.volume), ball.cut, add=add))


@tries("ModelFit.py: has no structures of its own")
def test_a_model_for_strokes_is_refused_where_models_segment_by_themselves(panel, install):
    from ProSMASegmentationLib.Base.ProSMAError import ProSMAError

    package = install()
    volume = scenes.add_volume(scenes.texture((20, 24, 28)))
    for call in (
        lambda: panel.logic.segment(volume, package.id),
        lambda: panel.logic.batch([volume], package.id),
        lambda: panel.logic.fineTune("folder", package.id),
    ):
        with pytest.raises(ProSMAError, match="segments what strokes mean") as caught:
            call()
        assert caught.value.code == "bad_model" and "ProSMA Strokes" in caught.value.remedy
    panel.logic.prepared(volume, "tiny", None)  # and test_from_nothing_... follows the other way out


def test_it_works_under_a_transform(panel, install):
    package = install()
    ball = Ball(panel, scenes.quarter_turn())
    effect = start(ball)
    ball.draw(*MISSING)
    answered(effect)
    assert marks(effect)[18, 14, 15:18].all()
    expected = by_python(package, image_of(ball.volume), ball.cut, add=marks(effect))
    click(effect.applyButton)
    assert np.array_equal(ball.voxels(), expected)


def test_an_engine_that_cannot_run_is_said_in_one_line_and_refine_answers(ball, install, monkeypatch):
    install()
    effect = start(ball)
    problem = {"code": "no_torch", "message": "PyTorch is not installed.", "remedy": "Install it."}
    monkeypatch.setitem(ball.panel.logic.engine.ready, "problem", problem)
    ball.draw(*MISSING)
    assert "PyTorch is not installed. Install it." in effect.answerLabel.text
    assert effect.applyButton.enabled and not effect.isBusy
    assert [tool for tool, button in effect.toolButtons.items() if button.enabled] == ["Brush", "Point"]
