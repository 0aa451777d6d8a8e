import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Batch.BatchQueue import BatchItem
from ProSMASegmentationLib.Panel.PanelText import ERROR, NORMAL, WARNING, duration, plainText, showText

IMAGES_KEY = "ProSMASegmentation/Batch/Images"  # these belong to the computer, not to the scene
RESULTS_KEY = "ProSMASegmentation/Batch/Results"
VOLUMES, SEQUENCE, FOLDER = range(3)  # entries of batchSourceComboBox
NODES, FILES = range(2)  # entries of batchOutputComboBox
NAME, STATE = range(2)  # columns
WIDEST_NAME = 220  # pixels
COLOURS = {BatchItem.FINISHED: "#1e8449", BatchItem.THERE: "#1e8449", BatchItem.FAILED: "#c0392b"}


class BatchSection:
    """The panel's section Batch: what to segment, where the results go, and how far each image is.

    :param ui: the panel's widgets, whose names begin with ``batch``.
    :param logic: the module's logic.
    :param choices: function that gives the Choices.
    :param mayRun: function that asks what has to be asked before a model package runs; whether to go on.
    :param onShow: called with (volume node, segmentation node) of the result that was clicked.

    Public: ``queue``, the BatchQueue that runs or ran last, or None.
    """

    def __init__(self, ui, logic, choices, mayRun, onShow):
        self._ui = ui
        self._logic = logic
        self._choices = choices
        self._mayRun = mayRun
        self._onShow = onShow
        self.queue = None
        settings = qt.QSettings()
        ui.batchImagesPath.currentPath = str(settings.value(IMAGES_KEY, "") or "")
        ui.batchResultsPath.currentPath = str(settings.value(RESULTS_KEY, "") or "")
        ui.batchTable.setColumnCount(2)
        ui.batchTable.setHorizontalHeaderLabels([_("Image"), _("State")])
        ui.batchTable.horizontalHeader().setStretchLastSection(True)
        ui.batchTable.verticalHeader().setVisible(False)
        ui.batchTable.setWordWrap(False)
        ui.batchTable.connect("cellClicked(int,int)", self._onCell)
        ui.batchSourceComboBox.connect("currentIndexChanged(int)", self._onChoice)
        ui.batchOutputComboBox.connect("currentIndexChanged(int)", self._onChoice)
        ui.batchButton.connect("clicked()", self._onStartOrCancel)
        self._onChoice()
        self.setRoi(None)
        self._showState()

    @property
    def isActive(self):
        return self.queue is not None and self.queue.isActive

    def forgetRemoved(self):
        """Let go of results that are in the scene no more."""
        for item in self.queue.items if self.queue is not None else ():
            if item.segmentationNode is not None and item.segmentationNode.GetScene() is None:
                item.segmentationNode = None

    # ---- choices

    def setRoi(self, roiNode):
        """Say that whole images are segmented, if the panel's region of interest lets a person expect something else."""
        text = _("The region of interest '{name}' is not used here: whole images are segmented.")
        showText(self._ui.batchRoiLabel, text.format(name=roiNode.GetName()) if roiNode is not None else "", WARNING)

    def _onChoice(self, _index=None):
        """Show the widgets that the choices need."""
        ui = self._ui
        source = ui.batchSourceComboBox.currentIndex
        if source == FOLDER:  # its images are not in the scene, so their results cannot be there
            ui.batchOutputComboBox.setCurrentIndex(FILES)
        ui.batchOutputComboBox.enabled = source != FOLDER
        for widget in (ui.batchSequenceLabel, ui.batchSequenceSelector):
            widget.setVisible(source == SEQUENCE)
        for widget in (ui.batchImagesLabel, ui.batchImagesPath):
            widget.setVisible(source == FOLDER)
        for widget in (ui.batchResultsLabel, ui.batchResultsPath):
            widget.setVisible(ui.batchOutputComboBox.currentIndex == FILES)

    def _source(self):
        """What ``batch`` takes as source."""
        ui = self._ui
        if ui.batchSourceComboBox.currentIndex == VOLUMES:
            return None
        if ui.batchSourceComboBox.currentIndex == SEQUENCE:
            node = ui.batchSequenceSelector.currentNode()
            if node is None:
                raise ProSMAError("bad_input", _("Choose a sequence first."))
            return node
        path = ui.batchImagesPath.currentPath.strip()
        if not path:
            raise ProSMAError("bad_input", _("Choose the folder of the images first."))
        qt.QSettings().setValue(IMAGES_KEY, path)
        return path

    def _resultsFolder(self):
        """The folder for files, or None for nodes."""
        if self._ui.batchOutputComboBox.currentIndex == NODES:
            return None
        path = self._ui.batchResultsPath.currentPath.strip()
        if not path:
            raise ProSMAError("bad_output", _("Choose a folder for the results first."))
        qt.QSettings().setValue(RESULTS_KEY, path)
        return path

    # ---- running

    def _onStartOrCancel(self):
        if self.isActive:
            self.queue.cancel()
            return
        chosen = self._choices()
        try:
            if chosen.package is None:
                raise ProSMAError("bad_model", _("Choose a model first."))
            source, folder = self._source(), self._resultsFolder()
            if not self._mayRun(chosen.package) or self.isActive:
                return
            self.queue = self._logic.batch(
                source, chosen.package, folder, chosen.device, wait=False, mirror=chosen.mirror
            )
        except ProSMAError as error:
            showText(self._ui.batchLabel, str(error), ERROR)
            return
        self.queue.onProgress.append(self._onProgress)
        self.queue.onEnd.append(self._onEnd)
        self._onProgress(self.queue, None)
        self._showState()

    def _onProgress(self, queue, item):
        if item is None:
            self._fillTable()
        else:
            self._showItem(queue.items.index(item), item)
        self._ui.batchProgressBar.setValue(round(1000 * queue.fraction))
        showText(self._ui.batchStageLabel, self._stage(queue))

    def _stage(self, queue):
        if not queue.isActive:
            return ""
        running = queue.having(BatchItem.RUNNING)
        if not running:
            return _("Looking for images") if not queue.items else ""
        text = _("{number} of {count}: {name}").format(
            number=queue.items.index(running[0]) + 1, count=len(queue.items), name=running[0].name
        )
        if queue.secondsLeft is not None:
            text += " - " + _("about {time} left").format(time=duration(queue.secondsLeft))
        return text

    def _onEnd(self, _queue):
        self._showState()

    # ---- what is shown

    def _fillTable(self):
        table, items = self._ui.batchTable, self.queue.items
        table.setRowCount(len(items))
        for row, item in enumerate(items):
            self._showItem(row, item)
        table.resizeColumnToContents(NAME)
        table.setColumnWidth(NAME, min(table.columnWidth(NAME), WIDEST_NAME))

    def _showItem(self, row, item):
        table = self._ui.batchTable
        for column, text in ((NAME, item.name), (STATE, stateText(item))):
            cell = table.item(row, column)
            if cell is None:
                cell = qt.QTableWidgetItem()
                table.setItem(row, column, cell)
            cell.setText(text)
            cell.setToolTip(plainText(str(item.error or item.output or item.name)))
        if item.state in COLOURS:
            cell.setForeground(qt.QBrush(qt.QColor(COLOURS[item.state])))
        if item.state == BatchItem.RUNNING:
            table.scrollToItem(cell)

    def _showState(self):
        """The parts that differ before, during and after a batch."""
        ui, queue, running = self._ui, self.queue, self.isActive
        ui.batchButton.text = _("Cancel batch") if running else _("Start batch")
        for widget in (ui.batchSourceComboBox, ui.batchSequenceSelector, ui.batchImagesPath, ui.batchResultsPath):
            widget.enabled = not running
        ui.batchOutputComboBox.enabled = not running and ui.batchSourceComboBox.currentIndex != FOLDER
        ui.batchProgressBar.setVisible(running)
        ui.batchTable.setVisible(queue is not None and bool(queue.items))
        failures = queue.failures if queue is not None and not running else []
        ui.batchReport.setVisible(bool(failures))
        ui.batchReport.setPlainText("\n".join(f"{item.name}: {item.error}" for item in failures))
        if running or queue is None:
            showText(ui.batchLabel, "")
            showText(ui.batchStageLabel, self._stage(queue) if running else "")
            return
        showText(ui.batchStageLabel, "")
        text = " ".join(filter(None, (str(queue.error or ""), summary(queue))))
        showText(ui.batchLabel, text, ERROR if failures or queue.state == queue.FAILED else NORMAL)

    def _onCell(self, row, _column):
        """Show the result of the row, and of this row alone, to be looked at and corrected; or say where it is."""
        chosen = self.queue.items[row].segmentationNode
        if chosen is None or chosen.GetScene() is not slicer.mrmlScene:
            self._sayWhereItIs(self.queue.items[row])
            return
        for item in self.queue.items:
            node = item.segmentationNode
            if node is not None and node.GetScene() is slicer.mrmlScene and node.GetDisplayNode() is not None:
                node.GetDisplayNode().SetVisibility(node is chosen)
        self._onShow(chosen.GetNodeReference(chosen.GetReferenceImageGeometryReferenceRole()), chosen)

    def _sayWhereItIs(self, item):
        label = self._ui.batchLabel
        if item.error is not None:
            showText(label, f"{item.name}: {item.error}", ERROR if item.state == BatchItem.FAILED else NORMAL)
        elif item.state in (BatchItem.FINISHED, BatchItem.THERE):
            inFile = _("The result of '{name}' is the file '{path}'.")
            removed = _("The result of '{name}' is not in the scene any more. Start the batch again to make it anew.")
            showText(label, (inFile if item.output else removed).format(name=item.name, path=item.output))


def stateText(item):
    """How far an item is, in words."""
    if item.state == BatchItem.RUNNING:
        return f"{item.stage or _('Looking at the image')} {item.fraction:.0%}"
    if item.state == BatchItem.THERE and item.edited:
        return _("Was there already, edited since")
    return {
        BatchItem.WAITING: _("Waiting"),
        BatchItem.FINISHED: _("Done"),
        BatchItem.THERE: _("Was there already"),
        BatchItem.FAILED: _("Failed"),
        BatchItem.CANCELLED: _("Not done"),
    }[item.state]


def summary(queue):
    """What came of a batch, in one sentence, and what to do."""
    parts = [
        (BatchItem.FINISHED, _("{number} done")),
        (BatchItem.THERE, _("{number} there already")),
        (BatchItem.FAILED, _("{number} failed")),
        (BatchItem.CANCELLED, _("{number} not done")),
    ]
    counts = [text.format(number=len(queue.having(state))) for state, text in parts if queue.having(state)]
    if not counts:
        return _("There is nothing to segment.") if queue.state == queue.FINISHED else ""
    text = ", ".join(counts) + "."
    if queue.having(BatchItem.CANCELLED):
        text += " " + _("Start the batch again to go on from here.")
    return text
