import logging

import qt
from slicer.i18n import tr as _

from prosma.image import tags
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Results.FingerprintSteps import fingerprintsOfImage, isUnchanged
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower
from ProSMASegmentationLib.Results.SegmentLabelmap import SegmentLabelmap
from ProSMASegmentationLib.Results.SegmentStatus import expectedDice, tag

MILLISECONDS_TO_SETTLE = 200


class MillilitreTable:
    """Fills a table with the volume of each segment in ml, as the segments are now: it follows edits. Beside it stands the
    quality that the engine expects of a segment which no run or person has changed since.

    Voxels are counted in slices of the event loop, so that large segmentations do not hold up Slicer.
    """

    def __init__(self, table):
        self._table = table
        self._table.setColumnCount(3)
        self._table.setHorizontalHeaderLabels([_("Segment"), _("Volume (ml)"), _("Quality (expected Dice)")])
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
        rows, layers = [], {}  # fingerprints by image, which segments may share
        segmentation = self._followed.node.GetSegmentation()
        for segmentId in segmentation.GetSegmentIDs():
            segment = segmentation.GetSegment(segmentId)
            ml = yield from SegmentLabelmap.millilitres(segment)
            quality = yield from _expectedQuality(segment, layers)
            rows.append((segment.GetName(), ml, quality))
        return rows

    def _show(self, rows):
        self._task = None
        self._table.setRowCount(len(rows))
        for row, (name, ml, quality) in enumerate(rows):
            self._table.setItem(row, 0, qt.QTableWidgetItem(name))
            self._table.setItem(row, 1, qt.QTableWidgetItem(f"{ml:.3f}"))
            self._table.setItem(row, 2, qt.QTableWidgetItem(quality))
        self._table.resizeColumnToContents(0)
        self._table.setVisible(bool(rows))

    def _failed(self, error):
        self._task = None
        logging.error("ProSMA: volumes of segments could not be computed: %s", error)


def _expectedQuality(segment, layers):
    """Steps that return what a run expects of its segment, in words; empty for one that was changed since."""
    expected, image = expectedDice(segment), SegmentLabelmap.of(segment)
    if expected is None or image is None or tag(segment, tags.STATE):
        return ""
    if image not in layers:
        layers[image] = yield from fingerprintsOfImage(image)
    fingerprint = layers[image].get(segment.GetLabelValue(), tags.EMPTY)
    return tags.quality_in_words(expected) if isUnchanged(fingerprint, tag(segment, tags.FINGERPRINT)) else ""
