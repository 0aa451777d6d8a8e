"""The imitation of PythonQt: what it offers and what it refuses."""

import functools
import sys

import pytest

import headless_slicer

pytestmark = pytest.mark.usefixtures("slicer")


@pytest.fixture
def qt():
    headless_slicer.start()
    import qt

    return qt


def test_properties_are_attributes(qt):
    label = qt.QLabel("text")
    label.toolTip = "tip"
    label.name = "label"
    assert (label.text, label.toolTip, label.objectName, label.className()) == ("text", "tip", "label", "QLabel")
    box = qt.QComboBox()
    box.addItems(["a", "b"])
    box.currentIndex = 1
    assert (box.count, box.currentText) == (2, "b")


def test_property_is_not_a_method(qt):
    label = qt.QLabel("text")
    with pytest.raises(TypeError, match="not callable"):
        label.text()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda qt: qt.QLabel(text="x"),
        lambda qt: qt.QTimer(interval=5),
        lambda qt: qt.QSize(width=1, height=2),
        lambda qt: qt.QLabel().setText(text="x"),
        lambda qt: qt.QMenu().addAction("do it", lambda: None),
    ],
)
def test_refuses_keywords_and_callables(qt, wrong):
    with pytest.raises(ValueError, match="PythonQt"):
        wrong(qt)


def test_refuses_new_attributes_on_objects_from_cpp(qt):
    import ctk

    for made in (qt.QLabel(), qt.QTimer(), ctk.ctkSliderWidget()):
        with pytest.raises(AttributeError, match="C\\+\\+"):
            made.mine = 1


def test_python_subclasses_take_attributes_and_keywords(qt):
    class Mine(qt.QLabel):
        def __init__(self, text, extra=1):
            super().__init__(text)
            self.extra = extra

    mine = Mine("text", extra=2)
    mine.text = "other"
    assert (mine.extra, mine.text) == (2, "other")


def test_unknown_signal_is_refused(qt):
    with pytest.raises(ValueError, match="no signal"):
        qt.QPushButton().connect("pressed(int)", print)


@pytest.mark.parametrize("byName", [True, False])
def test_slots_get_as_many_arguments_as_they_have_parameters(qt, byName):
    got = []

    class Receiver:
        def one(self, checked):
            got.append(("one", checked))

        def none(self):
            got.append(("none",))

    receiver = Receiver()
    slots = (
        receiver.one,
        receiver.none,
        lambda x=5: got.append(("default", x)),
        functools.partial(got.append, "partial"),
    )
    button = qt.QPushButton()
    for slot in slots[:3]:
        button.connect("clicked(bool)", slot) if byName else button.clicked.connect(slot)
    button.click()
    assert got == [("one", False), ("none",), ("default", False)]


def test_disconnect(qt):
    got = []
    button = qt.QPushButton()

    def slot():
        got.append(1)

    button.connect("clicked()", slot)
    assert button.disconnect("clicked()", slot) is True
    assert button.disconnect("clicked()", slot) is False
    button.clicked.connect(slot)
    button.clicked.disconnect(slot)
    button.click()
    assert got == []


def test_connection_to_a_slot_by_name(qt):
    button, edit = qt.QPushButton(), qt.QLineEdit("text")
    button.connect("clicked()", edit, "clear()")
    button.click()
    assert edit.text == ""


def test_lists_are_tuples_and_enumerations_integers(qt):
    process = qt.QProcess()
    process.setArguments(["a", "b"])
    assert process.arguments() == ("a", "b")
    assert qt.QProcess.NormalExit == 0
    assert process.NotRunning == process.state() == 0


def test_dynamic_properties_and_children_by_name(qt):
    widget = qt.QWidget()
    label = qt.QLabel(widget)
    label.name = "inside"
    widget.setProperty("own", 3)
    widget.own = 4
    assert widget.property("own") == widget.own == 4
    assert widget.inside is label
    with pytest.raises(AttributeError):
        _ = widget.outside


def test_byte_arrays(qt):
    assert not qt.QByteArray()
    assert bool(qt.QByteArray(b"x")) and qt.QByteArray(b"x").data() == b"x"


def test_deleted_receiver_is_not_called(qt):
    button, edit = qt.QPushButton(), qt.QLineEdit("text")
    button.connect("clicked()", edit.clear)
    qt.QTimer.singleShot(0, edit.close)
    edit.delete()
    button.click()
    headless_slicer.processEvents()


def test_timer_and_single_shot_run(qt):
    got = []
    timer = qt.QTimer()
    timer.singleShot = True
    timer.connect("timeout()", lambda: got.append("timer"))
    timer.start(1)
    qt.QTimer.singleShot(5, lambda: got.append("once"))
    headless_slicer.processEvents(until=lambda: len(got) == 2)
    headless_slicer.processEvents()
    assert got == ["timer", "once"]


def test_process_runs(qt):
    process, lines, ended = qt.QProcess(), [], []
    process.connect("readyReadStandardOutput()", lambda: lines.append(process.readAllStandardOutput().data()))
    process.connect("finished(int,QProcess::ExitStatus)", lambda code, status: ended.append((code, status)))
    process.start(sys.executable, ["-c", "print('hello'); raise SystemExit(3)"])
    headless_slicer.processEvents(until=lambda: ended)
    assert b"".join(lines).split() == [b"hello"]
    assert ended == [(3, qt.QProcess.NormalExit)]


def test_exception_in_a_slot_reaches_the_test(qt, capsys):
    button = qt.QPushButton("Fail")
    button.connect("clicked()", lambda: 1 / 0)
    button.show()
    with pytest.raises(headless_slicer.SlotError, match="ZeroDivisionError"):
        headless_slicer.click(button)
    assert "ZeroDivisionError" in capsys.readouterr().err
    headless_slicer.processEvents()


def test_hidden_and_disabled_buttons_cannot_be_clicked(qt):
    button = qt.QPushButton("Apply")
    with pytest.raises(RuntimeError, match="hidden"):
        headless_slicer.click(button)
    button.show()
    button.enabled = False
    with pytest.raises(RuntimeError, match="disabled"):
        headless_slicer.click(button)


def test_waiting_ends(qt):
    with pytest.raises(TimeoutError):
        headless_slicer.processEvents(until=lambda: False, timeout=0.05)
