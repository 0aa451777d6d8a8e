import logging
import time
from concurrent.futures import ThreadPoolExecutor, wait

import qt
import slicer

SECONDS_BETWEEN_LOOKS = 0.005


def waitFor(condition):
    """Process events until ``condition()`` is true."""
    while not condition():
        slicer.app.processEvents()
        time.sleep(SECONDS_BETWEEN_LOOKS)


class EventLoopTask:
    """Runs a generator piece by piece in the event loop, so that long work on the main thread never freezes Slicer.

    Each turn of the event loop takes steps until SECONDS_PER_TURN have passed. A step between two ``yield`` should
    stay in the order of 10 ms. The callbacks are called once, from the event loop.

    :param steps: the generator; its return value is given to onDone.
    :param onDone: called with the generator's return value.
    :param onError: called with the exception that the generator raised.
    """

    SECONDS_PER_TURN = 0.01
    MILLISECONDS_BETWEEN_TURNS = 1

    def __init__(self, steps, onDone, onError):
        self._steps = steps
        self._onDone = onDone
        self._onError = onError
        self._ended = False

    def start(self):
        qt.QTimer.singleShot(self.MILLISECONDS_BETWEEN_TURNS, self._turn)
        return self

    def cancel(self):
        """Take no further step: the generator's ``finally`` blocks run, no callback is called. A step may call this too."""
        self._ended = True
        if not self._steps.gi_running:
            self._steps.close()

    def _turn(self):
        if self._ended:
            return
        end = time.monotonic() + self.SECONDS_PER_TURN
        try:
            while time.monotonic() < end and not self._ended:
                next(self._steps)
        except StopIteration as finished:
            self._finish(self._onDone, finished.value)
        except Exception as error:
            logging.debug("A step in the event loop failed", exc_info=True)
            self._finish(self._onError, error)
        else:
            self.start()

    def _finish(self, callback, value):
        if not self._ended:
            self._ended = True
            callback(value)


def inThread(work, *arguments, meanwhile=lambda: None):
    """Steps (for EventLoopTask) that wait for a function which another thread runs, and return or raise what it does.

    For work in libraries that let go of Python's lock meanwhile, as SimpleITK does. It must touch neither scene nor Qt.

    :param meanwhile: called again and again while the thread is at work, from the event loop.
    """
    threads = ThreadPoolExecutor(1)
    try:
        result = threads.submit(work, *arguments)
        while not result.done():
            wait([result], SECONDS_BETWEEN_LOOKS)
            meanwhile()
            yield
        return result.result()
    finally:
        threads.shutdown(wait=False)
