import logging

import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap

MILLISECONDS_TO_SETTLE = 200


class MillilitreTable:
    """Fills a table with the volume of each segment in ml, as the segments are now: it follows edits.

    Voxels are counted in slices of the event loop, so that large segmentations do not hold up Slicer.
    """

    def __init__(self, table):
        self._table = table
        self._table.setColumnCount(2)
        self._table.setHorizontalHeaderLabels([_("Segment"), _("Volume (ml)")])
        self._table.verticalHeader().setVisible(False)
        self._table.horizontalHeader().setStretchLastSection(True)
        self._followed = SegmentationFollower(self._count, MILLISECONDS_TO_SETTLE)
        self._task = None

    def setSegmentationNode(self, node):
        if not self._followed.follow(node):
            return
        self._stopCounting()
        if node is None:
            self._show([])
            return
        self._count()

    def cleanup(self):
        self.setSegmentationNode(None)

    def _stopCounting(self):
        self._followed.stop()
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def _count(self):
        self._stopCounting()
        self._task = EventLoopTask(self._steps(), self._show, self._failed).start()

    def _steps(self):
        rows = []
        segmentation = self._followed.node.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            ml = yield from SegmentLabelmap.millilitres(segment)
            rows.append((segment.GetName(), ml))
        return rows

    def _show(self, rows):
        self._task = None
        self._table.setRowCount(len(rows))
        for row, (name, ml) in enumerate(rows):
            self._table.setItem(row, 0, qt.QTableWidgetItem(name))
            self._table.setItem(row, 1, qt.QTableWidgetItem(f"{ml:.3f}"))
        self._table.resizeColumnToContents(0)
        self._table.setVisible(bool(rows))

    def _failed(self, error):
        self._task = None
        logging.error("ProSMA: volumes of segments could not be computed: %s", error)
