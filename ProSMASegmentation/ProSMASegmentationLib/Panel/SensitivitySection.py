import logging

import qt
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Correct.SensitivityMove import SensitivityMove, sensitivityOf, whyNotMovable
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, plainText, showText
from ProSMASegmentationLib.Panel.WheelGuard import WheelGuard
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower
from ProSMASegmentationLib.Results.SegmentStatus import tag

MILLISECONDS_TO_SETTLE = 100
POSITIONS_PER_UNIT = 20  # of a slider
LARGEST = 5 * POSITIONS_PER_UNIT
NAME, SLIDER, VALUE = range(3)  # columns


class SensitivitySection:
    """The panel's sliders: one for each segment that ProSMA made, its middle is the model's own border.

    :param ui: the panel's widgets (sensitivityTable, sensitivityLabel, resetSensitivityButton).
    """

    def __init__(self, ui):
        self._ui = ui
        self._table = table = ui.sensitivityTable
        table.setColumnCount(3)
        table.setHorizontalHeaderLabels([_("Segment"), _("Less - more"), _("Value")])
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(SLIDER, qt.QHeaderView.Stretch)
        self._guard = WheelGuard()
        self._followed = SegmentationFollower(self.update, MILLISECONDS_TO_SETTLE)
        self._segmentIds = []  # in the order of the rows
        self._sliders = []
        self._move = None
        self._task = None  # renews the fingerprint of the segment that was moved last
        self._resetting = None  # puts all sliders back
        self._updating = False
        ui.resetSensitivityButton.connect("clicked()", self._onReset)
        self.update()

    def setSegmentationNode(self, node):
        """Show this segmentation, or nothing for None."""
        if not self._followed.follow(node):
            return
        self._setMove(None)
        if self._resetting is not None:
            self._resetting.cancel()
        self.update()

    def cleanup(self):
        self.setSegmentationNode(None)
        if self._task is not None:
            self._task.cancel()

    def slider(self, segmentId):
        """The slider of a segment, or None."""
        return self._sliders[self._segmentIds.index(segmentId)] if segmentId in self._segmentIds else None

    # ---- what is shown

    def update(self):
        """Show the segments and their sensitivities as they are now."""
        if self._move is not None:
            return
        segmentation = self._followed.node.GetSegmentation() if self._followed.node is not None else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation is not None else []
        ids = [segmentId for segmentId in ids if tag(segmentation.GetSegment(segmentId), tags.LABEL)]
        if ids != self._segmentIds:
            self._makeRows(ids)
        reasons = [whyNotMovable(self._followed.node, segmentId) for segmentId in ids]
        self._updating = True
        for row, (segmentId, why) in enumerate(zip(ids, reasons, strict=True)):
            segment = segmentation.GetSegment(segmentId)
            self._table.item(row, NAME).setText(segment.GetName())
            slider = self._sliders[row]
            slider.enabled = not why
            slider.toolTip = plainText(why) or _(
                "Right: more voxels belong to the segment. Left: fewer. Middle: as the model says."
            )
            slider.setValue(round(POSITIONS_PER_UNIT * sensitivityOf(segment)))
            self._showValue(row, slider.value)
        self._updating = False
        self._ui.resetSensitivityButton.enabled = any(
            not why and slider.value != 0 for why, slider in zip(reasons, self._sliders, strict=True)
        )
        if not ids:
            showText(self._ui.sensitivityLabel, _("There is no result of ProSMA's yet. Segment a volume first."))
        else:
            showText(self._ui.sensitivityLabel, reasons[0] if all(reasons) else "")

    def _makeRows(self, ids):
        self._segmentIds, self._sliders = list(ids), []
        self._table.setRowCount(0)
        self._table.setRowCount(len(ids))
        for row, segmentId in enumerate(ids):
            for column in (NAME, VALUE):
                self._table.setItem(row, column, qt.QTableWidgetItem(""))
            self._table.setCellWidget(row, SLIDER, self._newSlider(segmentId))

    def _newSlider(self, segmentId):
        slider = qt.QSlider(qt.Qt.Horizontal)
        slider.setRange(-LARGEST, LARGEST)
        slider.singleStep = 2
        slider.pageStep = 10
        slider.tickPosition = qt.QSlider.TicksBelow
        slider.tickInterval = LARGEST
        slider.focusPolicy = qt.Qt.StrongFocus
        slider.installEventFilter(self._guard)
        self._sliders.append(slider)
        slider.connect("sliderPressed()", lambda: self._onPressed(segmentId))
        slider.connect("valueChanged(int)", lambda position: self._onMoved(segmentId, position))
        slider.connect("sliderReleased()", lambda: self._onReleased(segmentId))
        return slider

    def _showValue(self, row, position):
        self._table.item(row, VALUE).setText(f"{position / POSITIONS_PER_UNIT:+.2f}" if position else "0")

    # ---- what a person does

    def _onPressed(self, segmentId):
        self._setMove(self._begin(segmentId))

    def _onMoved(self, segmentId, position):
        if self._updating:
            return
        self._showValue(self._segmentIds.index(segmentId), position)
        if self._move is None:  # by a key or a click beside the handle
            self._set(segmentId, position)
        elif self._move.isValid:
            self._move.to(position / POSITIONS_PER_UNIT)

    def _onReleased(self, segmentId):
        move = self._move
        self._setMove(None)
        if move is not None and move.isValid:
            self._finish(move, self.slider(segmentId).value)
        self.update()

    def _onReset(self):
        self._ui.resetSensitivityButton.enabled = False
        self._resetting = EventLoopTask(self._resetSteps(), lambda _nothing: self.update(), self._failed).start()

    def _resetSteps(self):
        """A segment in each step: where it is shown in 3D its surface takes a moment."""
        for segmentId in list(self._segmentIds):
            slider = self.slider(segmentId)
            if slider is not None and slider.enabled and slider.value != 0:
                self._set(segmentId, 0)
                yield

    def _set(self, segmentId, position):
        move = self._begin(segmentId)
        if move is not None:
            self._finish(move, position)
        self._followed.start()

    def _setMove(self, move):
        self._move = move
        self._followed.paused = move is not None

    def _begin(self, segmentId):
        try:
            return SensitivityMove(self._followed.node, segmentId)
        except ProSMAError as error:
            showText(self._ui.sensitivityLabel, str(error), ERROR)
            self._followed.start()
            return None

    def _finish(self, move, position):
        showText(self._ui.sensitivityLabel, "", NORMAL)
        if move.finish(position / POSITIONS_PER_UNIT):
            self._task = EventLoopTask(move.renewFingerprint(), self._onRenewed, self._failed).start()

    def _onRenewed(self, _nothing):
        self._followed.start()

    def _failed(self, error):
        logging.error("ProSMA: a segment whose border was moved could not be brought to an end", exc_info=error)
