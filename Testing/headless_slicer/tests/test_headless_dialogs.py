"""Dialogs are recorded and answered instead of waiting for a person."""

import pytest

import headless_slicer


def test_error_display_is_recorded(slicer):
    slicer.util.errorDisplay("It went wrong", detailedText="the details")
    (shown,) = headless_slicer.messages
    assert (shown.text, shown.detail) == ("It went wrong", "the details")
    assert "error" in shown.title


def test_confirmation_is_yes_unless_answered(slicer):
    assert slicer.util.confirmYesNoDisplay("Go on?") is True
    headless_slicer.answer("No", "Cancel")
    assert slicer.util.confirmYesNoDisplay("Go on?") is False
    assert slicer.util.confirmOkCancelDisplay("Go on?") is False
    assert [each.result for each in headless_slicer.messages] == [0x4000, 0x10000, 0x400000]


def test_own_buttons(slicer):
    import qt

    box = qt.QMessageBox()
    box.addButton("Keep", qt.QMessageBox.RejectRole)
    throw = box.addButton("Throw away", qt.QMessageBox.AcceptRole)
    headless_slicer.answer("Throw away")
    box.exec_()
    assert box.clickedButton() is throw
    headless_slicer.answer("Nonsense")
    with pytest.raises(ValueError, match="Throw away"):
        box.exec_()


def test_static_calls_return_the_value_alone(slicer):
    import qt

    assert qt.QFileDialog.getOpenFileName(None, "Open", "", "*.zip") == ""
    headless_slicer.answer("model.zip", "Ada", qt.QMessageBox.No)
    assert qt.QFileDialog.getOpenFileName(None, "Open", "", "*.zip") == "model.zip"
    assert qt.QInputDialog.getText(None, "Name", "Your name") == "Ada"
    question = qt.QMessageBox.question(None, "Title", "Sure?", qt.QMessageBox.Yes | qt.QMessageBox.No)
    assert question == qt.QMessageBox.No
    assert headless_slicer.dialogs.pending() == 0


def test_own_dialog_is_answered_by_a_function(slicer):
    import qt

    dialog = qt.QDialog()
    qt.QLabel("Your name", dialog)
    edit = qt.QLineEdit(dialog)

    def fill(shown):
        assert shown.isVisible()
        edit.text = "typed"
        return qt.QDialog.Accepted

    headless_slicer.answer(fill)
    assert dialog.exec_() == qt.QDialog.Accepted
    assert (edit.text, headless_slicer.messages[0].text) == ("typed", "Your name")
    assert dialog.exec_() == qt.QDialog.Rejected


def test_menu_action_is_chosen_by_its_text(slicer):
    import qt

    got, menu = [], qt.QMenu()
    action = menu.addAction("Reload")
    action.connect("triggered()", lambda: got.append("reload"))
    headless_slicer.answer("Reload")
    assert menu.exec_(qt.QPoint(0, 0)) is action
    assert got == ["reload"]


def test_try_with_error_display_shows_and_raises(slicer):
    with pytest.raises(ValueError), slicer.util.tryWithErrorDisplay("No luck", waitCursor=True):
        raise ValueError("the reason")
    assert headless_slicer.messages[0].text == "No luck\n\nthe reason"


def test_testing_mode_shows_nothing(slicer):
    slicer.app.testing = True
    try:
        slicer.util.errorDisplay("unseen")
    finally:
        slicer.app.testing = False
    assert headless_slicer.messages == []
