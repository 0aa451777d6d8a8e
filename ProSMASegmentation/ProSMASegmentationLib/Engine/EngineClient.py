import logging

import slicer
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base import OwnedFolder
from ProSMASegmentationLib.Base.ChildProcess import ChildProcess
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError
from ProSMASegmentationLib.Base.Shared import Shared

LINES_TOLD = 30  # of what the engine said last, in the log


class EngineClient(Shared):
    """Keeps one engine process warm and talks to it: requests and events are lines of JSON.

    >>> engine = EngineClient.shared()
    >>> engine.request({"do": "describe", "model": folder, "device": "auto"}, onEvent=print)

    The process starts with the first request (or ``start``), keeps the model loaded between requests, and ends as soon
    as its stdin closes: when Slicer quits, and also when Slicer is killed.
    """

    OFF, STARTING, READY = "off", "starting", "ready"
    SECONDS_TO_END = 2

    def __init__(self):
        self.state = self.OFF
        self.ready = {}  # the engine's ``ready`` event: versions, devices, problem
        self._process = None
        self._handlers = {}  # id of a request: function that gets its events
        self._requests = 0
        self._observers = []
        slicer.app.connect("aboutToQuit()", self.stop)
        OwnedFolder.removeAbandoned()

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
        self._process = ChildProcess(["-m", "prosma.worker"], self._onEvent, self._onEnded)
        self._setState(self.STARTING)
        self._process.start()

    def request(self, message, onEvent):
        """Send a request; ``onEvent(event)`` gets its progress, and last its result or error. Returns the request's id.

        If the engine ends before it has answered, onEvent gets an error event with code ``engine_stopped``, or
        ``out_of_memory`` where that was the reason.
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
        process, self._process = self._process, None
        if process is None:
            return
        process.stop(grace=self.SECONDS_TO_END)
        self._failRequests("engine_stopped", _("The engine was shut down."), "")
        self.ready = {}
        self._setState(self.OFF)

    def _send(self, message):
        if self._process is not None:  # else it could not be started, which the handler has been told
            self._process.send(message)

    def _setState(self, state):
        self.state = state
        for callback in list(self._observers):
            callback()

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

    def _onEnded(self, ending):
        """The process ended by itself: forget it, so that the next request starts a new one."""
        reason = ending.sentence(_("The engine"))
        logging.error("ProSMA: %s\n%s", reason, "\n".join(ending.log[-LINES_TOLD:]))
        self._process = None
        self.ready = {}
        self._setState(self.OFF)
        if ending.lackedMemory:
            remedy = _("Close other programs, or segment a smaller region with an ROI.")
            self._failRequests("out_of_memory", reason, remedy)
        else:
            remedy = _("Try again; if it happens again, close other programs or segment a smaller region with an ROI.")
            self._failRequests("engine_stopped", reason, remedy)

    def _failRequests(self, code, message, remedy):
        handlers, self._handlers = self._handlers, {}
        for requestId, handler in handlers.items():
            event = {"event": "error", "id": requestId, "code": code, "message": message, "remedy": remedy}
            try:
                handler(event)
            except Exception:
                logging.exception("ProSMA: handling the end of the engine failed")


def errorFromEvent(event):
    """The exception that an engine's error event stands for."""
    return ProSMAError(
        event.get("code", "internal"), event.get("message", ""), event.get("remedy", ""), event.get("fit")
    )
