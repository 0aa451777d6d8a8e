import importlib.util
import logging
import re

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.ChildProcess import ChildProcess
from ProSMASegmentationLib.Base.Job import Job
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Models.PackageImport import PackageImport

PACKAGES = {"lightning": "lightning>=2.5", "monai": "monai>=1.5", "yaml": "pyyaml>=6"}  # beside the engine's own


class FineTuning(Job):
    """A fine-tuning of a model on saved cases, in a process of its own: ``prosma finetune --progress json``.

    Nothing in it blocks the event loop. The new package is written into a private folder and imported among the user's
    models once it is whole; a process that is cancelled, killed or fails leaves nothing.

    Public, beside what a Job has: ``parent`` (the old package), ``package`` (the new one), ``processId``.

    :param library: the ModelLibrary. :param package: the model to start from. :param folder: TrainingFolder.
    :param name: of the new model. :param options: further options of the command, such as {"steps": 60}.
    """

    def __init__(self, library, package, folder, name=None, options=None):
        super().__init__()
        self.stage = _("Starting")
        self.parent = package
        self.package = None
        self._library = library
        self._folder = folder
        self._name = name or newName(package, library)
        self._options = options or {}
        self._process = None
        self._adding = None  # the PackageImport of what was made
        self._output = None  # private folder

    @property
    def processId(self):
        return self._process.processId if self._process is not None else None

    def check(self):
        """:raises ProSMAError: ``bad_model``, ``bad_folder`` or ``no_training``, if it cannot start."""
        if not self.parent.folder.is_dir():
            raise ProSMAError(
                "bad_model",
                _("The model '{name}' is not there any more.").format(name=self.parent.name),
                _("Choose another model."),
            )
        self._folder.finishInterrupted()
        self._folder.check(self.parent)
        if not self._folder.cases():
            raise ProSMAError(
                "bad_folder",
                _("There is no case in '{path}' to learn from.").format(path=self._folder.path),
                _("Correct a result and save it as a training case first."),
            )
        missing = missingPackages()
        if missing:
            raise ProSMAError(
                "no_training",
                _("Fine-tuning needs the Python packages {names}, which are not installed.").format(
                    names=", ".join(missing)
                ),
                _("Click Fine-tune in the panel and let them be installed."),
            )

    def start(self):
        """Begin; returns at once. :raises ProSMAError: see ``check``."""
        self.check()
        self.state = self.RUNNING
        self._output = OwnedFolder.newFolder(OwnedFolder.FINE_TUNING)
        arguments = ["-m", "prosma.cli", "finetune", str(self.parent.folder.absolute())]
        arguments += ["--data", str(self._folder.path), "--output", str(self._output / "model"), "--name", self._name]
        arguments += ["--accept-licence", "--progress", "json"]
        for option, value in self._options.items():
            arguments += [f"--{option.replace('_', '-')}", str(value)]
        slicer.app.connect("aboutToQuit()", self.cancel)
        logging.info("ProSMA: fine-tuning '%s' on %s", self.parent.id, self._folder.path)
        self._process = ChildProcess(arguments, self._onEvent, self._onEnded).start()
        return self

    def cancel(self):
        """Stop for good; nothing is left of it."""
        if not self.isActive:
            return
        if (
            self._adding is not None
        ):  # its end is ours: the thread may be past the point from which there is a new model
            self._adding.cancel()
            return
        self._endCancelled()

    def wait(self):
        """Process events until it has ended. Returns the new package or raises the error."""
        super().wait()
        return self.package

    # ---- the process

    def _onEvent(self, event):
        self._announce(event["stage"], event["fraction"], event["seconds_left"])

    def _onEnded(self, ending):
        if ending.started and ending.exitCode == 0 and not ending.crashed:
            self._import()
            return
        logging.error("ProSMA: fine-tuning failed\n%s", "\n".join(ending.log))
        words = [line.removeprefix("prosma: ") for line in ending.log if line.startswith("prosma: ")]
        if not ending.started:
            self._fail(ending.sentence(_("Fine-tuning")), _("Install Slicer or the extension again."))
        elif words and not ending.wasEndedFromOutside:  # what the command says at its end, for a person
            self._fail(words[-1], "")
        elif ending.lackedMemory or ending.wasEndedFromOutside:
            self._fail(ending.sentence(_("Fine-tuning")), _("Close other programs, and try again."))
        else:
            self._fail(ending.sentence(_("Fine-tuning")), _("The application log has the details; please report them."))

    def _import(self):
        self._adding = PackageImport(self._library, self._output / "model")
        self._adding.onProgress.append(lambda adding: self._announce(adding.stage, adding.fraction))
        self._adding.onEnd.append(self._onAdded)
        self._adding.start()

    def _onAdded(self, adding):
        self.package = adding.package
        if adding.state == adding.FINISHED:
            self.fraction = 1.0
            self._end(self.FINISHED)
        elif adding.state == adding.CANCELLED:
            self._endCancelled()
        else:
            self._fail(adding.error.message, adding.error.remedy)

    # ---- ends

    def _endCancelled(self):
        error = ProSMAError("cancelled", _("Fine-tuning was cancelled. Models and cases are as they were."))
        self._end(self.CANCELLED, error)

    def _fail(self, message, remedy):
        nothing = _("No model was made; cases and models are as they were.")
        error = ProSMAError("fine_tuning", f"{message} {nothing}", remedy)
        logging.error("ProSMA: %s", error)
        self._end(self.FAILED, error)

    def _end(self, state, error=None):
        slicer.app.disconnect("aboutToQuit()", self.cancel)
        self._process.stop()
        OwnedFolder.remove(self._output)
        super()._end(state, error)


def missingPackages():
    """Requirements of the packages that training needs and that are not installed."""
    return [requirement for name, requirement in PACKAGES.items() if importlib.util.find_spec(name) is None]


def newName(package, library):
    """'X' -> 'X, fine-tuned', and with a number if there is a model of that name."""
    base = re.sub(r", fine-tuned( \d+)?$", "", package.name) + ", fine-tuned"
    taken = {other.name for other in library.packages}
    name, number = base, 2
    while name in taken:
        name, number = f"{base} {number}", number + 1
    return name
