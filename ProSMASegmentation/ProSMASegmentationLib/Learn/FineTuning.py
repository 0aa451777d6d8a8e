import importlib.util
import logging
import re
import shutil
import tempfile
from collections import deque
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import Places
from ProSMASegmentationLib.Base.EventLoopTask import waitForEnd
from ProSMASegmentationLib.Base.JsonLines import JsonLines
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Engine.EngineClient import engineEnvironment, killProcess

PACKAGES = {"lightning": "lightning>=2.5", "monai": "monai>=1.5", "yaml": "pyyaml>=6"}  # beside the engine's own
SECONDS_TO_END = 2


class FineTuning:
    """A fine-tuning of a model on saved cases, in a process of its own: ``prosma finetune --progress json``.

    Nothing in it blocks the event loop. The new package is written into a private folder and imported among the user's
    models once it is whole; a process that is cancelled, killed or fails leaves nothing.

    Public: ``state`` (RUNNING, FINISHED, FAILED, CANCELLED), ``stage``, ``fraction``, ``secondsLeft``, ``error``
    (ProSMAError), ``parent`` (the old package), ``package`` (the new one), and two lists of functions that get this
    object: ``onProgress`` and ``onEnd``.

    :param library: the ModelLibrary. :param package: the model to start from. :param folder: TrainingFolder.
    :param name: of the new model. :param options: further options of the command, such as {"steps": 60}.
    """

    RUNNING, FINISHED, FAILED, CANCELLED = "running", "finished", "failed", "cancelled"

    def __init__(self, library, package, folder, name=None, options=None):
        self.state = self.RUNNING
        self.stage = _("Starting")
        self.fraction = 0.0
        self.secondsLeft = None
        self.error = None
        self.parent = package
        self.package = None
        self.onProgress = []
        self.onEnd = []
        self._library = library
        self._folder = folder
        self._name = name or newName(package, library)
        self._options = options or {}
        self._process = None
        self._processId = None
        self._output = None  # private folder
        self._received = JsonLines()
        self._log = deque(maxlen=50)

    @property
    def isActive(self):
        return self.state == self.RUNNING

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
        self._output = Path(tempfile.mkdtemp(prefix="prosma-finetune-", dir=slicer.app.temporaryPath))
        arguments = ["-m", "prosma.cli", "finetune", str(self.parent.folder), "--data", str(self._folder.path)]
        arguments += ["--output", str(self._output / "model"), "--name", self._name]
        arguments += ["--accept-licence", "--progress", "json"]
        for option, value in self._options.items():
            arguments += [f"--{option.replace('_', '-')}", str(value)]
        self._process = process = qt.QProcess()
        process.setProcessEnvironment(engineEnvironment())
        for processSignal, slot in self._slots().items():
            process.connect(processSignal, slot)
        slicer.app.connect("aboutToQuit()", self.cancel)
        logging.info("ProSMA: fine-tuning '%s' on %s", self.parent.id, self._folder.path)
        process.start(Places.pythonExecutable(), arguments)
        return self

    def cancel(self):
        """Stop for good; nothing is left of it."""
        if not self.isActive:
            return
        self.error = ProSMAError("cancelled", _("Fine-tuning was cancelled. Models and cases are as they were."))
        self._end(self.CANCELLED)

    def wait(self):
        """Process events until it has ended. Returns the new package or raises the error."""
        waitForEnd(self)
        return self.package

    # ---- the process

    def _slots(self):
        return {
            "readyReadStandardOutput()": self._onOutput,
            "readyReadStandardError()": self._onLog,
            "finished(int,QProcess::ExitStatus)": self._onFinished,
            "errorOccurred(QProcess::ProcessError)": self._onProcessError,
        }

    def _onOutput(self):
        for event in self._received.feed(self._process.readAllStandardOutput()):
            self._onEvent(event)

    def _onEvent(self, event):
        self._processId = event.get("pid", self._processId)
        self.stage, self.fraction, self.secondsLeft = event["stage"], event["fraction"], event["seconds_left"]
        for callback in list(self.onProgress):
            callback(self)

    def _onLog(self):
        for line in bytes(self._process.readAllStandardError().data()).decode(errors="replace").splitlines():
            self._log.append(line)
            logging.debug("ProSMA fine-tuning: %s", line)

    def _onProcessError(self, error):
        if error == qt.QProcess.FailedToStart:  # a crash is also announced by finished()
            python = Places.pythonExecutable()
            self._fail(
                _("Fine-tuning could not be started with '{python}'.").format(python=python),
                _("Install Slicer or the extension again."),
            )

    def _onFinished(self, exitCode, exitStatus):
        self._onOutput()
        self._onLog()
        if exitStatus == qt.QProcess.CrashExit:
            self._fail(
                _("Fine-tuning was ended from outside (signal {number}).").format(number=exitCode),
                _("A computer that runs out of memory does this: close other programs, and try again."),
            )
        elif exitCode != 0:
            self._fail(self._lastWords() or _("Fine-tuning ended with code {number}.").format(number=exitCode), "")
        else:
            self._import()

    def _lastWords(self):
        """The sentence that the command says at its end, for a person."""
        lines = [line for line in self._log if line.startswith("prosma: ")]
        return lines[-1].removeprefix("prosma: ") if lines else "".join(list(self._log)[-1:])

    def _import(self):
        try:
            self.package = self._library.importPackage(self._output / "model")
        except ProSMAError as error:
            self._fail(error.message, error.remedy)
            return
        self.fraction = 1.0
        self._end(self.FINISHED)

    # ---- ends

    def _fail(self, message, remedy):
        nothing = _("No model was made; cases and models are as they were.")
        self.error = ProSMAError("fine_tuning", f"{message} {nothing}", remedy)
        logging.error("ProSMA: %s\n%s", self.error, "\n".join(self._log))
        self._end(self.FAILED)

    def _end(self, state):
        slicer.app.disconnect("aboutToQuit()", self.cancel)
        for processSignal, slot in self._slots().items():
            self._process.disconnect(processSignal, slot)
        if self._process.state() != qt.QProcess.NotRunning:
            self._process.kill()
            killProcess(self._processId)
            self._process.waitForFinished(1000 * SECONDS_TO_END)
        shutil.rmtree(self._output, ignore_errors=True)
        qt.QTimer.singleShot(0, self._forgetProcess)  # it must outlive its own signal, in which this may be called
        self.state = state
        for callback in list(self.onEnd):
            callback(self)

    def _forgetProcess(self):
        self._process = None


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
