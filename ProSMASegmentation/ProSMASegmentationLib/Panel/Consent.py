import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Panel.PanelText import plainText


class Consent:
    """What a person is asked before a model runs: whether they accept its licence, and whether PyTorch may be installed.

    :param library: the ModelLibrary, which remembers the accepted licences.
    :param engine: the EngineClient, which knows whether PyTorch is there.
    :param check: the SetupCheck, which installs it.
    :param onInstalling: called when an installation begins and when it has ended; see ``installing``.
    """

    def __init__(self, library, engine, check, onInstalling):
        self._library = library
        self._engine = engine
        self._check = check
        self._onInstalling = onInstalling
        self.installing = False

    def mayRun(self, package):
        """Whether the model's licence is accepted and the engine can run, after asking where that is needed.

        :raises ProSMAError: ``no_torch`` if the installation failed, ``busy`` while one is on its way.
        """
        self.refuseWhileInstalling()
        return self._askForLicence(package) and self._askForTorch()

    def install(self):
        """Install PyTorch; Slicer's installer takes minutes and lets clicks through meanwhile.

        :raises ProSMAError: ``no_torch`` if it failed, ``busy`` while another installation is on its way.
        """
        self.refuseWhileInstalling()
        self.installing = True
        self._onInstalling()
        qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
        try:
            self._check.install()
        finally:
            qt.QApplication.restoreOverrideCursor()
            self.installing = False
            self._onInstalling()

    def refuseWhileInstalling(self):
        """:raises ProSMAError: ``busy``, while packages are being replaced under the engine."""
        if self.installing:
            raise ProSMAError("busy", _("PyTorch is being installed."), _("Wait until that is done."))

    def _askForLicence(self, package):
        if self._library.licenceIsAccepted(package):
            return True
        question = _("The model '{name}' may be used only under this licence: {licence}\n\nDo you accept it?").format(
            name=package.name, licence=package.model["training"]["licence"]
        )
        if not slicer.util.confirmYesNoDisplay(plainText(question), windowTitle="ProSMA"):
            return False
        self._library.acceptLicence(package)
        return True

    def _askForTorch(self):
        """Whether the engine can run; if PyTorch is missing, offer to install it first."""
        problem = self._engine.problem
        if not problem or problem["code"] != "no_torch":
            return True
        question = _("ProSMA needs PyTorch, a download of up to 3 GB. Install it now?")
        if not slicer.util.confirmYesNoDisplay(question, windowTitle="ProSMA"):
            return False
        self.install()
        return True
