import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Models.PackageImport import PackageImport
from ProSMASegmentationLib.Panel.PanelText import showProgress, showText


class AddModelButton:
    """Adding models: a menu that asks where from, then how far it is, and Cancel in place of Add until it has ended.

    :param ui: the panel's widgets (addModelButton, addModelProgressBar, addModelLabel).
    :param library: the ModelLibrary.
    :param onAdded: called with each package that is among the models now.
    :param onError: called with a ProSMAError when one could not be added.
    """

    def __init__(self, ui, library, onAdded, onError):
        self._ui = ui
        self._library = library
        self._onAdded = onAdded
        self._onError = onError
        self._adding = None  # the PackageImport that runs
        self._text, self._toolTip = ui.addModelButton.text, ui.addModelButton.toolTip
        self._menu = qt.QMenu(ui.addModelButton)
        self._menu.addAction(_("From a file (.zip)...")).connect("triggered()", self._onFile)
        self._menu.addAction(_("From a folder...")).connect("triggered()", self._onFolder)
        ui.addModelButton.connect("clicked()", self._onAddOrCancel)
        ui.addModelProgressBar.setVisible(False)
        showText(ui.addModelLabel, "")

    def cleanup(self):
        """The panel goes away: stop what is under way, and tell nobody."""
        if self._adding is not None:
            self._adding.onProgress.clear()
            self._adding.onEnd.clear()
            self._adding.cancel()

    def _onAddOrCancel(self):
        if self._adding is not None:
            self._adding.cancel()
            return
        button = self._ui.addModelButton
        self._menu.exec_(button.mapToGlobal(qt.QPoint(0, button.height)))

    def _onFile(self):
        path = qt.QFileDialog.getOpenFileName(
            self._ui.addModelButton, _("Add a model package"), "", _("Model packages") + " (*.zip)"
        )
        self._add(path)

    def _onFolder(self):
        self._add(qt.QFileDialog.getExistingDirectory(self._ui.addModelButton, _("Add a model package")))

    def _add(self, path):
        if not path or self._adding is not None:
            return
        self._adding = PackageImport(self._library, path)
        self._adding.onProgress.append(self._onProgress)
        self._adding.onEnd.append(self._onEnd)
        self._ui.addModelButton.text = _("Cancel")
        self._ui.addModelButton.toolTip = _("Stop adding the model. Your models stay as they are.")
        self._ui.addModelProgressBar.setVisible(True)
        self._adding.start()

    def _onProgress(self, adding):
        showProgress(self._ui.addModelProgressBar, self._ui.addModelLabel, adding)

    def _onEnd(self, adding):
        self._adding = None
        self._ui.addModelButton.text, self._ui.addModelButton.toolTip = self._text, self._toolTip
        self._ui.addModelProgressBar.setVisible(False)
        showText(self._ui.addModelLabel, adding.error.message if adding.state == adding.CANCELLED else "")
        if adding.state == adding.FINISHED:
            self._onAdded(adding.package)
        elif adding.state == adding.FAILED:
            self._onError(adding.error)
