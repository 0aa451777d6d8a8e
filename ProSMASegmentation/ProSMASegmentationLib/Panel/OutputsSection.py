import math

import qt
import slicer
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError
from ProSMASegmentationLib.Correct.LargestPart import LargestPart
from ProSMASegmentationLib.Outputs.OutputVolume import ENTROPY, GATE, MARGIN, PROBABILITY, OutputVolume
from ProSMASegmentationLib.Outputs.SegmentMeasures import SegmentMeasures
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, duration, showText
from ProSMASegmentationLib.Results.KeptProbabilities import KeptProbabilities
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower
from ProSMASegmentationLib.Results.SegmentStatus import tag

MILLISECONDS_TO_SETTLE = 200


class OutputsSection:
    """The panel's section More: volumes of probability, uncertainty and gates, the largest part alone, and measures.

    :param ui: the panel's widgets (outputKindComboBox, outputSegmentComboBox, outputSegmentLabel, createVolumeButton,
      outputVolumeLabel, largestPartButton, largestPartLabel, referenceSelector, measureButton, measuresTable,
      measuresLabel).
    :param logic: the module's logic.
    :param choices: function that gives the Choices.
    """

    def __init__(self, ui, logic, choices):
        self._ui = ui
        self._logic = logic
        self._choices = choices
        self._follower = SegmentationFollower(self._listSegments, MILLISECONDS_TO_SETTLE)
        self._tasks = {}  # button: what runs since it was clicked
        self.job = None  # GateMapJob that runs
        kinds = {
            PROBABILITY: _("Probability of a segment"),
            ENTROPY: _("Uncertainty (entropy of all classes)"),
            MARGIN: _("Uncertainty (margin of the two likeliest)"),
            GATE: _("Gate map (share of features that pass)"),
        }
        for kind, text in kinds.items():
            ui.outputKindComboBox.addItem(text, kind)
        ui.measuresTable.verticalHeader().setVisible(False)
        ui.measuresTable.setVisible(False)
        for label in (ui.outputVolumeLabel, ui.largestPartLabel, ui.measuresLabel):
            showText(label, "")
        ui.outputKindComboBox.connect("currentIndexChanged(int)", self._onKind)
        ui.createVolumeButton.connect("clicked()", self._onCreateOrCancel)
        ui.largestPartButton.connect("clicked()", self._onLargestPart)
        ui.measureButton.connect("clicked()", self._onMeasure)

    def cleanup(self):
        self._follower.follow(None)
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def setSegmentationNode(self, node):
        """Offer the outputs of this segmentation, or none for None."""
        if self._follower.follow(node):
            self._listSegments()

    def _listSegments(self):
        combo = self._ui.outputSegmentComboBox
        node = self._follower.node
        segmentation = node.GetSegmentation() if node is not None else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation is not None else []
        segments = [(each, segmentation.GetSegment(each)) for each in ids]
        wanted = [(segment.GetName(), each) for each, segment in segments if tag(segment, tags.LABEL)]
        if wanted == [(combo.itemText(index), combo.itemData(index)) for index in range(combo.count)]:
            return
        current = combo.currentData
        combo.clear()
        for name, segmentId in wanted:
            combo.addItem(name, segmentId)
        combo.setCurrentIndex(max(0, combo.findData(current)))

    def _onKind(self, _index):
        needed = self._ui.outputKindComboBox.currentData == PROBABILITY
        self._ui.outputSegmentLabel.setVisible(needed)
        self._ui.outputSegmentComboBox.setVisible(needed)

    # ---- running something in the event loop

    def _run(self, button, label, make, onDone):
        """Have the steps that ``make`` returns done in the event loop, while the button waits."""
        showText(label, "")
        try:
            steps = make()
        except ProSMAError as error:
            showText(label, str(error), ERROR)
            return
        button.enabled = False
        showText(label, _("Working..."))

        def end(text, style=NORMAL):
            self._tasks.pop(button.name, None)
            button.enabled = True
            showText(label, text, style)

        def fail(error):
            end(str(asProSMAError(error)), ERROR)

        task = EventLoopTask(steps, lambda value: end(onDone(value)), fail)
        self._tasks[button.name] = task.start()

    # ---- volumes

    def _onCreateOrCancel(self):
        ui = self._ui
        if self.job is not None:
            self.job.cancel(_("Making the gate map was cancelled."))
        elif ui.outputKindComboBox.currentData == GATE:
            self._startGateMap()
        else:
            kind, segmentId = ui.outputKindComboBox.currentData, ui.outputSegmentComboBox.currentData
            node = self._choices().segmentationNode
            self._run(
                ui.createVolumeButton,
                ui.outputVolumeLabel,
                lambda: OutputVolume(node, kind, segmentId).steps(),
                self._volumeText,
            )

    @staticmethod
    def _volumeText(node):
        return _("'{name}' is shown over the image.").format(name=node.GetName())

    def _startGateMap(self):
        ui = self._ui
        showText(ui.outputVolumeLabel, "")
        chosen = self._choices()
        try:
            if chosen.package is None:
                raise ProSMAError("bad_model", _("No model is chosen."), _("Choose a model."))
            self.job = self._logic.gateMap(
                list(chosen.volumes) or [None], chosen.package, chosen.roiNode, chosen.device, wait=False
            )
        except ProSMAError as error:
            showText(ui.outputVolumeLabel, str(error), ERROR)
            return
        self.job.onProgress.append(self._onProgress)
        self.job.onEnd.append(self._onGateMapEnd)
        ui.createVolumeButton.text = _("Cancel")

    def _onProgress(self, job):
        text = f"{job.stage}: {job.fraction:.0%}"
        if job.secondsLeft:
            text += " - " + _("about {time} left").format(time=duration(job.secondsLeft))
        showText(self._ui.outputVolumeLabel, text)

    def _onGateMapEnd(self, job):
        self.job = None
        self._ui.createVolumeButton.text = _("Create volume")
        if job.state == job.FINISHED:
            showText(self._ui.outputVolumeLabel, self._volumeText(job.outputNode))
        else:
            showText(self._ui.outputVolumeLabel, str(job.error), ERROR if job.state == job.FAILED else NORMAL)

    # ---- the largest part

    def _onLargestPart(self):
        self._keepLargestPart(self._choices().segmentationNode)

    def afterRun(self, node):
        """Take the islands out of what the newest run has written."""
        kept = KeptProbabilities.shared().latest(node)
        self._keepLargestPart(node, kept.segmentIds() if kept is not None else None)

    def _keepLargestPart(self, node, segmentIds=None):
        self._run(
            self._ui.largestPartButton,
            self._ui.largestPartLabel,
            lambda: LargestPart(node, segmentIds).steps(),
            self._removedText,
        )

    @staticmethod
    def _removedText(removed):
        if not removed:
            return _("There is nothing to take out.")
        parts = [_("{count} voxels of '{name}'").format(count=count, name=name) for name, count in removed.items()]
        return _("Taken out: {parts}.").format(parts=", ".join(parts))

    # ---- measures

    def _onMeasure(self):
        ui = self._ui
        node, reference = self._choices().segmentationNode, ui.referenceSelector.currentNode()
        self._run(
            ui.measureButton,
            ui.measuresLabel,
            lambda: SegmentMeasures(node, reference).steps(),
            self._showMeasures,
        )

    def _showMeasures(self, node):
        table, content = self._ui.measuresTable, node.GetTable()
        columns = content.GetNumberOfColumns()
        table.setColumnCount(columns)
        table.setHorizontalHeaderLabels([content.GetColumnName(column) for column in range(columns)])
        table.setRowCount(content.GetNumberOfRows())
        for row in range(content.GetNumberOfRows()):
            texts = [content.GetValue(row, 0).ToString()]
            numbers = [content.GetValue(row, column).ToDouble() for column in range(1, columns)]
            texts += ["-" if math.isnan(number) else f"{number:.3f}" for number in numbers]
            for column, text in enumerate(texts):
                table.setItem(row, column, qt.QTableWidgetItem(text))
        table.resizeColumnsToContents()
        table.setVisible(True)
        selection = slicer.app.applicationLogic().GetSelectionNode()
        selection.SetActiveTableID(node.GetID())
        slicer.app.applicationLogic().PropagateTableSelection()
        return _("'{name}' is a table of the scene now; the module Tables shows and saves it.").format(
            name=node.GetName()
        )
