import json
import logging
import os
import signal
from collections import deque

import qt
import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import Places
from ProSMASegmentationLib.Base.JsonLines import JsonLines
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError


class EngineClient:
    """Keeps one engine process warm and talks to it: requests and events are lines of JSON.

    >>> engine = EngineClient.shared()
    >>> engine.request({"do": "describe", "model": folder, "device": "auto"}, onEvent=print)

    The process starts with the first request (or ``start``), keeps the model loaded between requests, and ends as soon
    as its stdin closes: when Slicer quits, and also when Slicer is killed.
    """

    OFF, STARTING, READY = "off", "starting", "ready"
    SECONDS_TO_END = 2

    _shared = None

    @classmethod
    def shared(cls):
        """The engine that the panel and Python scripts have in common."""
        if cls._shared is None:
            cls._shared = cls()
        return cls._shared

    def __init__(self):
        self.state = self.OFF
        self.ready = {}  # the engine's ``ready`` event: versions, devices, problem
        self._process = None
        self._endedProcess = None
        self._received = JsonLines()
        self._log = deque(maxlen=200)
        self._handlers = {}  # id of a request: function that gets its events
        self._requests = 0
        self._observers = []
        slicer.app.connect("aboutToQuit()", self.stop)

    def addObserver(self, callback):
        """``callback()`` is called whenever ``state`` or ``ready`` has changed."""
        self._observers.append(callback)

    def removeObserver(self, callback):
        if callback in self._observers:
            self._observers.remove(callback)

    @property
    def problem(self):
        """What keeps the running engine from segmenting ({"code", "message", "remedy"}), or None."""
        return self.ready.get("problem") if self.state == self.READY else None

    @property
    def processId(self):
        """The engine's own process id, or None. The interpreter may be a launcher with another id."""
        return self.ready.get("pid") if self.state == self.READY else None

    def start(self):
        """Start the process unless it runs. Returns at once; ``ready`` comes as an event."""
        if self._process is not None:
            return
        process = qt.QProcess()
        process.setProcessEnvironment(engineEnvironment())
        for processSignal, slot in self._slots().items():
            process.connect(processSignal, slot)
        self._process = process
        self._received = JsonLines()
        self._log.clear()
        self._setState(self.STARTING)
        logging.info("ProSMA: starting the engine with %s", Places.pythonExecutable())
        process.start(Places.pythonExecutable(), ["-m", "prosma.worker"])

    def request(self, message, onEvent):
        """Send a request; ``onEvent(event)`` gets its progress, and last its result or error. Returns the request's id.

        If the engine ends before it has answered, onEvent gets an error event with code ``engine_stopped``.
        """
        self._requests += 1
        requestId = str(self._requests)
        self._handlers[requestId] = onEvent
        self.start()
        self._send({"id": requestId, **message})
        return requestId

    def cancel(self, requestId):
        """Ask the engine to drop a request. Its handler gets an error event with code ``cancelled``."""
        if self._process is not None and requestId in self._handlers:
            self._requests += 1
            self._send({"id": str(self._requests), "do": "cancel", "job": requestId})

    def stop(self):
        """End the process, with a moment's grace, and make sure that it is gone."""
        process, processId = self._process, self.processId
        if process is None:
            return
        for processSignal, slot in self._slots().items():
            process.disconnect(processSignal, slot)
        self._process = None
        process.closeWriteChannel()
        if not process.waitForFinished(1000 * self.SECONDS_TO_END):
            process.kill()
            killProcess(processId)
            process.waitForFinished(1000 * self.SECONDS_TO_END)
        self._failRequests(_("The engine was shut down."), "")
        self.ready = {}
        self._setState(self.OFF)

    def _slots(self):
        return {
            "readyReadStandardOutput()": self._onOutput,
            "readyReadStandardError()": self._onLog,
            "finished(int,QProcess::ExitStatus)": self._onFinished,
            "errorOccurred(QProcess::ProcessError)": self._onProcessError,
        }

    def _send(self, message):
        if self._process is None:  # it could not be started, which the handler has been told
            return
        self._process.write((json.dumps(message) + "\n").encode())

    def _setState(self, state):
        self.state = state
        for callback in list(self._observers):
            callback()

    def _onOutput(self):
        for event in self._received.feed(self._process.readAllStandardOutput()):
            self._onEvent(event)

    def _onEvent(self, event):
        if event["event"] == "ready":
            self.ready = event
            self._setState(self.READY)
            return
        requestId = event.get("id")
        last = event["event"] in ("result", "error")
        handler = self._handlers.pop(requestId, None) if last else self._handlers.get(requestId)
        if handler is None:
            logging.debug("ProSMA: event that nobody waits for: %s", event)
            return
        try:
            handler(event)
        except Exception:
            logging.exception("ProSMA: handling an event of the engine failed")

    def _onLog(self):
        for line in _bytes(self._process.readAllStandardError()).decode(errors="replace").splitlines():
            self._log.append(line)
            logging.debug("ProSMA engine: %s", line)

    def _onProcessError(self, error):
        if error != qt.QProcess.FailedToStart:
            return  # a crash is also announced by finished()
        self._onEnded(_("The engine could not be started with '{python}'.").format(python=Places.pythonExecutable()))

    def _onFinished(self, exitCode, exitStatus):
        self._onOutput()
        self._onLog()
        if exitStatus == qt.QProcess.CrashExit:
            reason = _("The engine was ended from outside (signal {number}).").format(number=exitCode)
            if exitCode in (0, signal.SIGTERM.value, getattr(signal, "SIGKILL", signal.SIGTERM).value):
                reason += " " + _("A computer that runs out of memory does this.")
        else:
            reason = _("The engine ended unexpectedly (exit code {number}).").format(number=exitCode)
            if self._log:
                reason += " " + _("It said last: {line}").format(line=self._log[-1])
        self._onEnded(reason)

    def _onEnded(self, reason):
        """The process ended by itself: forget it, so that the next request starts a new one."""
        logging.error("ProSMA: %s", reason)
        self._endedProcess = self._process  # it must outlive its own signal, in which this is called
        if self._log:
            logging.error("ProSMA: last lines of the engine:\n%s", "\n".join(list(self._log)[-30:]))
        self._process = None
        self.ready = {}
        self._setState(self.OFF)
        self._failRequests(
            reason, _("Try again; if it happens again, close other programs or segment a smaller region with an ROI.")
        )

    def _failRequests(self, message, remedy):
        handlers, self._handlers = self._handlers, {}
        for requestId, handler in handlers.items():
            event = {"event": "error", "id": requestId, "code": "engine_stopped", "message": message, "remedy": remedy}
            try:
                handler(event)
            except Exception:
                logging.exception("ProSMA: handling the end of the engine failed")


def engineEnvironment():
    """The environment in which the engine's Python finds ``prosma``."""
    environment = qt.QProcessEnvironment.systemEnvironment()
    paths = [str(Places.engineSource()), *filter(None, [environment.value("PYTHONPATH")])]
    environment.insert("PYTHONPATH", os.pathsep.join(paths))
    environment.insert("PYTHONIOENCODING", "utf-8")
    environment.remove("ITK_AUTOLOAD_PATH")  # Slicer's image plug-ins would be loaded into the engine
    return environment


def killProcess(processId):
    """End a process for certain: also the interpreter behind a launcher."""
    if processId:
        try:
            os.kill(processId, getattr(signal, "SIGKILL", signal.SIGTERM))
        except OSError:
            logging.debug("ProSMA: process %s had already ended", processId)


def errorFromEvent(event):
    """The exception that an engine's error event stands for."""
    return ProSMAError(event.get("code", "internal"), event.get("message", ""), event.get("remedy", ""))


def _bytes(byteArray):
    return bytes(byteArray.data())
