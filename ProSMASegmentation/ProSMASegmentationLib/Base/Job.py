from ProSMASegmentationLib.Base.EventLoopTask import waitFor


class Job:
    """Work that goes on in the event loop: where it stands, and who is told.

    Public: ``state`` (WAITING, RUNNING, FINISHED, FAILED, CANCELLED), ``stage`` (a text for a person), ``fraction``
    (0 to 1), ``secondsLeft`` (None while unknown), ``error`` (ProSMAError), and two lists of functions that get the job:
    ``onProgress`` and ``onEnd``.
    """

    WAITING, RUNNING, FINISHED, FAILED, CANCELLED = "waiting", "running", "finished", "failed", "cancelled"

    stage = ""
    fraction = 0.0
    secondsLeft = None

    def __init__(self):
        self.state = self.WAITING
        self.error = None
        self.onProgress = []
        self.onEnd = []

    @property
    def isActive(self):
        return self.state in (self.WAITING, self.RUNNING)

    def wait(self):
        """Process events until it has ended. Returns this object or raises its error."""
        waitFor(lambda: not self.isActive)
        if self.error is not None:
            raise self.error
        return self

    def _announce(self, stage, fraction, secondsLeft=None):
        self.stage, self.fraction, self.secondsLeft = stage, fraction, secondsLeft
        self._tell(self.onProgress)

    def _end(self, state, error=None):
        """The state and error from now on, which is told to all."""
        self.state = state
        self.error = error
        self._tell(self.onEnd)

    def _tell(self, callbacks, *more):
        for callback in list(callbacks):
            callback(self, *more)
