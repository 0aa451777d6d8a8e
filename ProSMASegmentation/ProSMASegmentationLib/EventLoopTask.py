import logging
import time

import qt


class EventLoopTask:
    """Runs a generator piece by piece in the event loop, so that long work on the main thread never freezes Slicer.

    Each turn of the event loop takes steps until SECONDS_PER_TURN have passed. A step between two ``yield`` should
    stay in the order of 10 ms. The callbacks are called once, from the event loop.

    :param steps: the generator; its return value is given to onDone.
    :param onDone: called with the generator's return value.
    :param onError: called with the exception that the generator raised.
    """

    SECONDS_PER_TURN = 0.02

    def __init__(self, steps, onDone, onError):
        self._steps = steps
        self._onDone = onDone
        self._onError = onError
        self._timer = qt.QTimer()
        self._timer.setInterval(1)
        self._timer.connect("timeout()", self._turn)

    def start(self):
        self._timer.start()
        return self

    def cancel(self):
        """Stop between two steps. The generator's ``finally`` blocks run; no callback is called."""
        self._stop()
        self._steps.close()

    def _stop(self):
        self._timer.stop()
        self._timer.disconnect("timeout()", self._turn)

    def _turn(self):
        end = time.monotonic() + self.SECONDS_PER_TURN
        try:
            while time.monotonic() < end:
                next(self._steps)
        except StopIteration as finished:
            self._stop()
            self._onDone(finished.value)
        except Exception as error:
            logging.debug("A step in the event loop failed", exc_info=True)
            self._stop()
            self._onError(error)
