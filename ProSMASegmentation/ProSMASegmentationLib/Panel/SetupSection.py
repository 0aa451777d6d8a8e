import slicer

from ProSMASegmentationLib.Panel.SetupCheck import SetupCheck


class SetupSection:
    """The panel's section Set-up check: a report that can be copied, and buttons that look again and mend.

    :param ui: the panel's widgets (setupCollapsibleButton, setupReport, checkButton, installButton, copyButton).
    :param engine: the EngineClient. :param library: the ModelLibrary.
    :param onCheck: called when the user wants everything to be looked at again.
    :param onInstall: called when the user wants PyTorch to be installed.
    """

    def __init__(self, ui, engine, library, onCheck, onInstall):
        self._ui = ui
        self._engine = engine
        self.check = SetupCheck(engine, library)
        ui.checkButton.connect("clicked()", onCheck)
        ui.installButton.connect("clicked()", onInstall)
        ui.copyButton.connect("clicked()", self._onCopy)
        ui.setupCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)

    def update(self):
        """Show the present state."""
        self._ui.installButton.enabled = bool(self._engine.problem)
        if not self._ui.setupCollapsibleButton.collapsed:
            self._ui.setupReport.setPlainText(self.check.report())

    def _onCollapsed(self, collapsed):
        if not collapsed:
            self.update()

    def _onCopy(self):
        slicer.app.clipboard().setText(self.check.report())
