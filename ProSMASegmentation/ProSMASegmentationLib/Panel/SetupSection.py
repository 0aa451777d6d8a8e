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
        self._installing = False
        self.check = SetupCheck(engine, library)
        ui.checkButton.connect("clicked()", onCheck)
        ui.installButton.connect("clicked()", onInstall)
        ui.copyButton.connect("clicked()", self._onCopy)
        ui.setupCollapsibleButton.connect("contentsCollapsed(bool)", self._onCollapsed)

    def update(self):
        """Show the present state."""
        self._ui.installButton.enabled = bool(self._engine.problem) and not self._installing
        self._ui.checkButton.enabled = not self._installing
        if not self._ui.setupCollapsibleButton.collapsed:
            self._ui.setupReport.setPlainText(self.check.report())

    def setInstalling(self, installing):
        """Whether packages are being installed: neither button does anything meanwhile."""
        self._installing = installing
        self.update()

    def _onCollapsed(self, collapsed):
        if not collapsed:
            self.update()

    def _onCopy(self):
        slicer.app.clipboard().setText(self.check.report())
