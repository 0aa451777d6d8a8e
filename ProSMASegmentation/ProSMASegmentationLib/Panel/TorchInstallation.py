import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class TorchInstallation:
    """PyTorch is offered where it is missing, and installed; meanwhile nothing else may start an engine.

    :param engine: the EngineClient, which knows whether PyTorch is there.
    :param check: the SetupCheck, which installs it.
    :param onInstalling: called when an installation begins and when it has ended; see ``installing``.
    """

    def __init__(self, engine, check, onInstalling):
        self._engine = engine
        self._check = check
        self._onInstalling = onInstalling
        self.installing = False

    def offer(self):
        """Whether the engine can run; if PyTorch is missing, a person is asked whether to install it first.

        :raises ProSMAError: ``no_torch`` if the installation failed, ``busy`` while one is on its way.
        """
        problem = self._engine.problem
        if not problem or problem["code"] != "no_torch":
            return True
        question = _("ProSMA needs PyTorch, a download of up to 3 GB. Install it now?")
        if not slicer.util.confirmYesNoDisplay(question, windowTitle="ProSMA"):
            return False
        self.install()
        return True

    def install(self):
        """Install PyTorch; Slicer's installer takes minutes and lets clicks through meanwhile.

        :raises ProSMAError: ``no_torch`` if it failed, ``busy`` while another installation is on its way.
        """
        self.refuseMeanwhile()
        self.installing = True
        self._onInstalling()
        qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
        try:
            self._check.install()
        finally:
            qt.QApplication.restoreOverrideCursor()
            self.installing = False
            self._onInstalling()

    def refuseMeanwhile(self):
        """:raises ProSMAError: ``busy``, while packages are being replaced under the engine."""
        if self.installing:
            raise ProSMAError("busy", _("PyTorch is being installed."), _("Wait until that is done."))
