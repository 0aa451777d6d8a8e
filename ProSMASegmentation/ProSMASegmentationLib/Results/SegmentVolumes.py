import logging

import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Volumes.VolumeReader import slabs

MILLISECONDS_TO_SETTLE = 200
MM3_PER_ML = 1000


class SegmentVolumes:
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
            self._table.setRowCount(0)
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
        import numpy

        rows = []
        segmentation = self._followed.node.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            image = SegmentLabelmap.of(segment)
            voxels = 0
            for slab in slabs(SegmentLabelmap.array(image)):
                voxels += int(numpy.count_nonzero(slab == segment.GetLabelValue()))
                yield
            rows.append((segment.GetName(), voxels * _voxelSize(image) / MM3_PER_ML))
        return rows

    def _show(self, rows):
        self._task = None
        self._table.setRowCount(len(rows))
        for row, (name, ml) in enumerate(rows):
            self._table.setItem(row, 0, qt.QTableWidgetItem(name))
            self._table.setItem(row, 1, qt.QTableWidgetItem(f"{ml:.3f}"))
        self._table.resizeColumnToContents(0)

    def _failed(self, error):
        self._task = None
        logging.error("ProSMA: volumes of segments could not be computed: %s", error)


def _voxelSize(image):
    """mm3 of a voxel."""
    if image is None:
        return 0.0
    x, y, z = image.GetSpacing()
    return x * y * z
