import qt

SENSITIVITY, REVIEW, EDITOR = "sensitivity", "review", "editor"
MOST_EDITOR_HEIGHT = 560  # pixels; what the Segment Editor needs beyond that is scrolled


class CorrectSection:
    """The panel's section Correct: shows one of its tools at a time, and none as long as there is nothing to correct.

    :param ui: the panel's widgets (correctCollapsibleButton, correctTools with one button a tool, the tools' pages,
      reviewButtons, editorScrollArea, segmentEditor).
    :param onEditorShown: called with whether the Segment Editor is in sight, whenever that has changed.
    """

    def __init__(self, ui, onEditorShown):
        self._ui = ui
        self._onEditorShown = onEditorShown
        self._hasNode = False
        self._editorIsShown = False
        self._buttons = {
            SENSITIVITY: ui.sensitivityToolButton,
            REVIEW: ui.reviewToolButton,
            EDITOR: ui.editorToolButton,
        }
        self._pages = {SENSITIVITY: ui.sensitivityPage, REVIEW: ui.reviewPage, EDITOR: ui.editorPage}
        self._height = _HeightKeeper(ui.editorScrollArea, ui.segmentEditor)
        ui.segmentEditor.installEventFilter(self._height)
        for button in self._buttons.values():
            button.connect("toggled(bool)", self._onTool)
        ui.correctCollapsibleButton.connect("contentsCollapsed(bool)", self._onTool)
        self._update()

    @property
    def tool(self):
        """The chosen tool: SENSITIVITY, REVIEW or EDITOR."""
        return next(tool for tool, button in self._buttons.items() if button.checked)

    def setSegmentationNode(self, node):
        """Offer the tools for this segmentation, or none for None."""
        self._hasNode = node is not None
        self._update()

    def openEditor(self):
        """Show the Segment Editor, as clicks on the section and on its button do."""
        self._ui.correctCollapsibleButton.collapsed = False
        self._buttons[EDITOR].checked = True

    def cleanup(self):
        self._ui.segmentEditor.removeEventFilter(self._height)

    def _onTool(self, _checked):
        self._update()

    def _update(self):
        tool = self.tool
        self._ui.correctTools.setVisible(self._hasNode)
        for name, page in self._pages.items():
            page.setVisible(self._hasNode and name == tool)
        self._ui.reviewButtons.setVisible(self._hasNode and tool != SENSITIVITY)
        shown = self._hasNode and tool == EDITOR and not self._ui.correctCollapsibleButton.collapsed
        if shown is not self._editorIsShown:
            self._editorIsShown = shown
            self._onEditorShown(shown)


class _HeightKeeper(qt.QObject):
    """Gives the Segment Editor the height that its present effect needs, up to a limit. Install it as event filter."""

    def __init__(self, scrollArea, editor):
        qt.QObject.__init__(self)
        self._scrollArea = scrollArea
        self._editor = editor

    def eventFilter(self, _watched, event):
        if event.type() == qt.QEvent.LayoutRequest:
            self._scrollArea.setFixedHeight(min(MOST_EDITOR_HEIGHT, self._editor.sizeHint.height()))
        return False
