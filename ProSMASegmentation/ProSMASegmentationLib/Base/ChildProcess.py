import json
import logging
import os
import signal
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import qt
from slicer.i18n import tr as _

from prosma.errors import MEMORY_SIGNS
from ProSMASegmentationLib.Base import Places
from ProSMASegmentationLib.Base.JsonLines import JsonLines

# The kernel counts the processes that it ended for want of memory: of the computer, and of a container.
COUNTS_OF_KILLS = (Path("/proc/vmstat"), Path("/sys/fs/cgroup/memory.events"))
CRASHED = "exit abnormally"  # PythonSlicer is a launcher, which says so and ends with code 1 when its Python crashed
LINES_KEPT = 200


class ChildProcess:
    """A program of ProSMA's in a process of its own, with Slicer's Python. It writes lines of JSON to its stdout.

    :param arguments: for Python.
    :param onEvent: gets each line as a dict.
    :param onEnd: gets an Ending, if the process ends by itself or cannot be started.

    Public: ``processId``, from the first event that tells it, since the interpreter may be a launcher with another one.
    """

    SECONDS_TO_END = 2

    def __init__(self, arguments, onEvent, onEnd):
        self.processId = None
        self._arguments = arguments
        self._onEvent = onEvent
        self._onEnd = onEnd
        self._received = JsonLines()
        self._log = deque(maxlen=LINES_KEPT)
        self._kills = killsForMemory()
        self._process = qt.QProcess()
        self._process.setProcessEnvironment(childEnvironment())
        self._process.setWorkingDirectory(str(Places.engineSource()))  # Python before 3.11 imports from there first

    def start(self):
        """Returns at once."""
        python = Places.pythonExecutable()
        logging.info("ProSMA: starting %s %s", python, " ".join(self._arguments))
        for processSignal, slot in self._slots().items():
            self._process.connect(processSignal, slot)
        self._process.start(python, self._arguments)
        return self

    def send(self, message):
        """Write one line of JSON to its stdin."""
        self._process.write((json.dumps(message) + "\n").encode())

    def stop(self, grace=0):
        """End the process for certain, also the interpreter behind a launcher. ``onEnd`` is not called.

        :param grace: seconds that it has to end by itself, once its stdin is closed.
        """
        for processSignal, slot in self._slots().items():
            self._process.disconnect(processSignal, slot)
        if self._process.state() == qt.QProcess.NotRunning:
            return
        self._process.closeWriteChannel()
        if not grace or not self._process.waitForFinished(1000 * grace):
            self._process.kill()
            killProcess(self.processId)
            self._process.waitForFinished(1000 * self.SECONDS_TO_END)

    def _slots(self):
        return {
            "readyReadStandardOutput()": self._onOutput,
            "readyReadStandardError()": self._onLog,
            "finished(int,QProcess::ExitStatus)": self._onFinished,
            "errorOccurred(QProcess::ProcessError)": self._onProcessError,
        }

    def _onOutput(self):
        for event in self._received.feed(self._process.readAllStandardOutput()):
            self.processId = event.get("pid", self.processId)
            self._onEvent(event)

    def _onLog(self):
        text = bytes(self._process.readAllStandardError().data()).decode(errors="replace")
        for line in filter(str.strip, text.splitlines()):
            self._log.append(line)
            logging.debug("ProSMA: %s: %s", self._arguments[1], line)

    def _onProcessError(self, error):
        if error == qt.QProcess.FailedToStart:  # a crash is also announced by finished()
            self._finish(Ending(started=False, python=Places.pythonExecutable()))

    def _onFinished(self, exitCode, exitStatus):
        self._onOutput()
        self._onLog()
        crashed = exitStatus == qt.QProcess.CrashExit
        self._finish(Ending(True, "", exitCode, crashed, list(self._log), killsForMemory() > self._kills))

    def _finish(self, ending):
        qt.QTimer.singleShot(0, self._outliveSignal)
        self._onEnd(ending)

    def _outliveSignal(self):
        """Nothing to do: this keeps the process from being deleted in its own signal, in which ``_finish`` is called."""


@dataclass
class Ending:
    """How a process ended by itself: ``log`` are the last lines of its stderr.

    ``kernelLackedMemory``: while it ran, the system ended some process for want of memory.
    """

    started: bool
    python: str
    exitCode: int = 0
    crashed: bool = False
    log: list = field(default_factory=list)
    kernelLackedMemory: bool = False

    @property
    def wasEndedFromOutside(self):
        """By a signal or a crash; behind a launcher only the launcher's words tell that."""
        return self.crashed or (self.exitCode != 0 and any(CRASHED in line for line in self.log[-2:]))

    @property
    def lackedMemory(self):
        """Whether memory ran out, as far as the process or the system says so."""
        said = "\n".join(self.log[-20:]).lower()
        return (self.wasEndedFromOutside and self.kernelLackedMemory) or any(sign in said for sign in MEMORY_SIGNS)

    def sentence(self, what):
        """What happened, for a person. :param what: the process, at the beginning of a sentence."""
        if not self.started:
            return _("{what} could not be started with '{python}'.").format(what=what, python=self.python)
        if self.lackedMemory:
            return _("{what} ended because the computer's memory did not suffice.").format(what=what)
        if self.wasEndedFromOutside:
            text = _("{what} was ended from outside. A computer that runs out of memory does this.")
            return text.format(what=what)
        text = _("{what} ended unexpectedly (exit code {number}).").format(what=what, number=self.exitCode)
        return text + (" " + _("It said last: {line}").format(line=self.log[-1]) if self.log else "")


def childEnvironment():
    """The environment in which Python finds ``prosma``, and imports nothing that somebody else has put in its way."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    for name in ("PYTHONSTARTUP", "PYTHONINSPECT"):
        environment.remove(name)
    environment.insert("PYTHONPATH", str(Places.engineSource()))  # PythonSlicer adds Slicer's own folders
    environment.insert("PYTHONSAFEPATH", "1")  # nothing from the current folder
    environment.insert("PYTHONIOENCODING", "utf-8")
    return environment


def killsForMemory():
    """How many processes the system has ended so far because memory ran out; 0 where it does not tell."""
    kills = 0
    for path in COUNTS_OF_KILLS:
        try:
            lines = [line.split() for line in path.read_text(encoding="ascii").splitlines()]
        except (OSError, ValueError):
            continue
        kills += sum(int(words[1]) for words in lines if words[:1] == ["oom_kill"])
    return kills


def killProcess(processId):
    """End a process for certain."""
    if processId:
        try:
            os.kill(processId, getattr(signal, "SIGKILL", signal.SIGTERM))
        except OSError:
            logging.debug("ProSMA: process %s had already ended", processId)
