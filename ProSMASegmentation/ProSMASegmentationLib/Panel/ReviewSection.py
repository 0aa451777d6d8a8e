import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.ProSMAError import asProSMAError
from ProSMASegmentationLib.Correct.Review import Review
from ProSMASegmentationLib.Panel.PanelText import ERROR, plainText, showText
from ProSMASegmentationLib.Panel.PlacePicture import SIZE as PICTURE_SIZE
from ProSMASegmentationLib.Panel.PlacePicture import iconOf, pixmapOf, placePicture
from ProSMASegmentationLib.Results.SegmentationFollower import SegmentationFollower

MILLISECONDS_TO_SETTLE = 500  # after an edit
CHECKED, PLACE, SIZE, WRONG = range(4)  # columns
ROW_HEIGHT = PICTURE_SIZE + 4  # pixels
KEYS = {"F3": "_onNext", "Shift+F3": "_onPrevious"}


class ReviewSection:
    """The panel's list of places to look at; it follows edits. Each row shows a picture, the segment, and the reason.

    First comes the place with the gravest consequence, which is the volume that is likely to be wrong there: the size
    of the doubtful place times its mean doubt, more where the whole segment is likely to be poor (see Review). The last
    column shows it.

    :param ui: the panel's widgets (correctCollapsibleButton, reviewTable, reviewLabel, previousRegionButton,
      nextRegionButton, checkRegionButton).
    """

    def __init__(self, ui):
        self._ui = ui
        self._table = table = ui.reviewTable
        table.setColumnCount(4)
        table.setHorizontalHeaderLabels([_("Seen"), _("Place"), _("Size\n(ml)"), _("Likely\nwrong (ml)")])
        table.setIconSize(qt.QSize(PICTURE_SIZE, PICTURE_SIZE))
        table.verticalHeader().setVisible(False)
        table.verticalHeader().setDefaultSectionSize(ROW_HEIGHT)
        table.horizontalHeader().setSectionResizeMode(PLACE, qt.QHeaderView.Stretch)
        self._followed = SegmentationFollower(self._onSettled, MILLISECONDS_TO_SETTLE)
        self._task = None
        self._shown = None  # the list as it stands in the table
        self._state = None  # of the segments when the list was computed
        self._pictures = {}  # _key of a region: its QPixmap, or None if there is none to be had
        self._entered = False
        self._shortcuts = []
        self._updating = False
        ui.previousRegionButton.connect("clicked()", self._onPrevious)
        ui.nextRegionButton.connect("clicked()", self._onNext)
        ui.checkRegionButton.connect("clicked()", self._onCheck)
        ui.correctCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)
        table.connect("cellClicked(int,int)", self._onClicked)
        table.connect("itemChanged(QTableWidgetItem*)", self._onItemChanged)
        self._show()

    # ---- life

    def enter(self):
        """The module is shown: its keys work, and the list is brought up to date."""
        self._entered = True
        self._followed.start()
        if self._shortcuts or slicer.util.mainWindow() is None:
            return
        for key, slot in KEYS.items():
            shortcut = qt.QShortcut(slicer.util.mainWindow())
            shortcut.setKey(qt.QKeySequence(key))
            shortcut.connect("activated()", getattr(self, slot))
            self._shortcuts.append(shortcut)

    def exit(self):
        """Another module is shown: the keys are free, and nothing is computed meanwhile."""
        self._entered = False
        self._stop()
        for shortcut in self._shortcuts:
            shortcut.setParent(None)
            shortcut.deleteLater()
        self._shortcuts = []

    def cleanup(self):
        self.exit()
        self.setSegmentationNode(None)

    def setSegmentationNode(self, node):
        """Show this segmentation's list, or nothing for None."""
        if not self._followed.follow(node):
            return
        self._stop()
        self._state = None
        self._pictures = {}
        if node is not None:
            self._followed.start()
        self._show()

    # ---- computing

    def _onCollapsed(self, _collapsed):
        self._followed.start()

    def _onSettled(self):
        """A moment after a change: compute the list anew where somebody looks at it and it may have become another."""
        if self._followed.node is None or self._followed.node.GetScene() is None:
            return
        if not self._entered or self._ui.correctCollapsibleButton.collapsed:
            return
        review = Review(self._followed.node)
        state = review.state()
        if not review.canCompute:
            self._stop()
            self._drawMissing(review)
            self._show()
        elif state != self._state:
            self._stop()
            self._state = state
            self._task = EventLoopTask(self._steps(review), self._onComputed, self._onFailed).start()
            self._show()
        elif self._task is None and review.regions != self._shown:
            self._show()

    def _steps(self, review):
        """Steps that compute the list and draw all its places as they are now."""
        regions = yield from review.steps()
        pictures = {}
        yield from self._draw(review, regions, pictures)
        self._pictures = pictures

    def _drawMissing(self, review):
        """Draw the places of a list that came with the scene."""
        missing = [region for region in review.regions or [] if _key(region) not in self._pictures]
        if missing:
            steps = self._draw(review, missing, self._pictures)
            self._task = EventLoopTask(steps, self._onComputed, self._onFailed).start()

    @staticmethod
    def _draw(review, regions, pictures):
        """Steps that put the picture of each region into a dict."""
        node = review.node
        volumeNode = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        there = volumeNode is not None and volumeNode.GetImageData() is not None
        for region in regions:
            picture = placePicture(node, volumeNode, region["place"], region["radius"]) if there else None
            pictures[_key(region)] = pixmapOf(picture) if picture is not None else None
            yield

    def _stop(self):
        self._followed.stop()
        if self._task is not None:
            self._task.cancel()
            self._task = self._state = None

    def _onComputed(self, _regions):
        self._task = None
        self._show()

    def _onFailed(self, error):
        self._task = None
        text = _("The places to review could not be computed: {error}").format(error=asProSMAError(error))
        showText(self._ui.reviewLabel, text, ERROR)

    # ---- what is shown

    def _show(self):
        review = Review(self._followed.node) if self._followed.node is not None else None
        regions = (review.regions if review is not None else None) or []
        current = self._table.currentRow()
        self._shown = regions
        self._updating = True
        self._table.setRowCount(len(regions))
        for row, region in enumerate(regions):
            self._showRow(row, region, review.place(region))
        for column in (CHECKED, SIZE, WRONG):
            self._table.resizeColumnToContents(column)
        if 0 <= current < len(regions):
            self._table.selectRow(current)
        self._updating = False
        for button in (self._ui.previousRegionButton, self._ui.nextRegionButton, self._ui.checkRegionButton):
            button.enabled = bool(regions)
        showText(self._ui.reviewLabel, self._message(review, regions))

    def _showRow(self, row, region, place):
        item = qt.QTableWidgetItem("")
        item.setFlags(qt.Qt.ItemIsUserCheckable | qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
        item.setCheckState(qt.Qt.Checked if region["checked"] else qt.Qt.Unchecked)
        self._table.setItem(row, CHECKED, item)
        texts = {
            PLACE: f"{region['segment']}\n{reasonOf(region)}",
            SIZE: f"{region['ml']:.3g}",
            WRONG: f"{region['ml'] * region['error'] / region['voxels']:.2g}",
        }
        where = ", ".join(f"{mm:.1f}" for mm in place)
        lines = [
            _("About {error:.0f} of {voxels} voxels are likely to be wrong.").format(**region),
            _("Place (R, A, S): {where} mm").format(where=where),
        ]
        if region.get("quality"):
            lines.append(_("Expected Dice of the whole segment: {quality}").format(**region))
        tip = "\n".join(lines)
        for column, text in texts.items():
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable)
            item.setToolTip(plainText(tip))
            picture = self._pictures.get(_key(region)) if column == PLACE else None
            if picture is not None:
                item.setIcon(iconOf(picture))
            self._table.setItem(row, column, item)

    def _message(self, review, regions):
        if review is None:
            return _("There is no result of ProSMA's yet. Segment a volume first.")
        if not review.canCompute:
            gone = _(
                "The class probabilities of this result are not there any more; they are not saved with the scene."
            )
            return f"{gone} {_('The list is the last one.') if regions else _('Segment the volume again.')}"
        if self._task is not None:
            return _("Looking for uncertain places...")
        left = sum(not region["checked"] for region in regions)
        if not regions:
            return _("The model is sure everywhere.") if review.regions is not None else ""
        return _("{left} of {count} places left to check.").format(left=left, count=len(regions))

    # ---- what a person does

    def _onNext(self):
        self._go(+1)

    def _onPrevious(self):
        self._go(-1)

    def _go(self, step):
        """To the next place that is not checked; if all are, to the next."""
        count = len(self._shown)
        if not count:
            return
        current = self._table.currentRow()
        start = current if current >= 0 else (-1 if step > 0 else count)
        rows = [(start + step * number) % count for number in range(1, count + 1)]
        row = next((row for row in rows if not self._shown[row]["checked"]), rows[0])
        self._select(row)

    def _onClicked(self, row, column):
        if column != CHECKED:
            self._select(row)

    def _select(self, row):
        self._table.selectRow(row)
        Review(self._followed.node).show(row)

    def _onCheck(self):
        """Mark the chosen place as checked and go on to the next."""
        row = self._table.currentRow()
        if 0 <= row < len(self._shown):
            self._setChecked(row, True)
        self._onNext()

    def _onItemChanged(self, item):
        if not self._updating and item.column() == CHECKED:
            self._setChecked(item.row(), item.checkState() == qt.Qt.Checked)

    def _setChecked(self, row, checked):
        Review(self._followed.node).setChecked(row, checked)
        self._show()


def reasonOf(region):
    """Why a person should look at a place, in words."""
    if region["island"]:
        return _("Island, apart from the rest")
    rival = region.get("rival")
    return _("Border with {rival}").format(rival=rival) if rival else _("Outer border")


def _key(region):
    return (*region["place"], region["label"])
