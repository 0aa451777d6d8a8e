import logging
import threading

import slicer
from slicer.i18n import tr as _

from prosma.cancel import Cancelled
from prosma.errors import explained
from prosma.package.folders import model_folders
from prosma.package.importing import import_package
from prosma.package.library import find_packages
from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask, inThread
from ProSMASegmentationLib.Base.Job import Job
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class PackageImport(Job):
    """A model package on its way among the user's models. A thread copies and checks it, so that the panel goes on.

    Cancelled or failed, it leaves the models as they were. Public, beside what a Job has: ``package``, the new one.

    :param library: the ModelLibrary, which lists the package once it is there.
    :param path: of the package, a folder or a zip file.
    """

    def __init__(self, library, path):
        super().__init__()
        self.package = None
        self._library = library
        self._path = path
        self._stop = threading.Event()
        self._copied = 0.0  # share, as the thread tells

    def start(self):
        """Returns at once."""
        self.state = self.RUNNING
        slicer.app.connect("aboutToQuit()", self.cancel)
        work = inThread(self._imported, meanwhile=self._onMeanwhile)
        EventLoopTask(work, self._onDone, self._onError).start()
        self._onMeanwhile()
        return self

    def cancel(self):
        """Stop. It has ended when the thread has removed what it had copied, which is a moment later."""
        self._stop.set()

    def _imported(self):
        """The new package, and all that there are; the thread does this."""
        package = import_package(self._path, self._onCopied, self._stop.is_set)
        return package, find_packages(model_folders())

    def _onCopied(self, share):
        self._copied = share

    def _onMeanwhile(self):
        checking = self._copied >= 1
        stage = (
            _("Stopping") if self._stop.is_set() else _("Checking the model") if checking else _("Copying the model")
        )
        if (stage, self._copied) != (self.stage, self.fraction):
            self._announce(stage, self._copied)

    def _onDone(self, found):
        self.package, packages = found
        self._library.show(packages)
        self._end(self.FINISHED)

    def _onError(self, error):
        if isinstance(error, Cancelled):
            sentence = _("Adding the model was cancelled. Your models are as they were.")
            self._end(self.CANCELLED, ProSMAError("cancelled", sentence))
            return
        told = explained(error)
        logging.error("ProSMA: a model could not be added: %s", told, exc_info=None if told is error else error)
        self._end(self.FAILED, ProSMAError(told.code, told.message, told.remedy))

    def _end(self, state, error=None):
        slicer.app.disconnect("aboutToQuit()", self.cancel)
        super()._end(state, error)
