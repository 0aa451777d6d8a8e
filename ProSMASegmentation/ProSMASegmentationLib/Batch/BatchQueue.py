import logging
import time

import qt
from slicer.i18n import tr as _

from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
from ProSMASegmentationLib.Base.Job import Job
from ProSMASegmentationLib.Base.ProSMAError import ProSMAError, asProSMAError

ATTEMPTS = 2  # of an item at which the engine was ended from outside
CODES_FOR_ALL = ("no_torch", "no_device", "no_engine", "bad_model", "licence")  # no item would fare better


class BatchItem:
    """One item of a batch: ``name``, ``state``, ``stage`` and ``fraction`` while it runs, ``error`` (ProSMAError),
    ``edited`` (a result that was there had been changed), and the result: ``segmentationNode`` or ``output`` (a path).
    """

    WAITING, RUNNING, FINISHED, FAILED, CANCELLED = Job.WAITING, Job.RUNNING, Job.FINISHED, Job.FAILED, Job.CANCELLED
    THERE = "there already"

    def __init__(self, name, task):
        self.name = name
        self.task = task
        self.state = self.WAITING
        self.stage = ""
        self.fraction = 0.0
        self.error = None
        self.edited = False
        self.attempts = 0
        self.segmentationNode = None
        self.output = task.output

    def end(self, state, error=None):
        self.state = state
        self.error = error
        self.stage = ""
        self.segmentationNode = self.task.segmentationNode
        self.task = None  # and with it the volumes


def _withWayOut(error):
    """A batch asks nothing: of an image that does not fit the model it says where a person is asked."""
    if not error.fit:
        return error
    wayOut = _("Or segment it on its own, where you are asked whether to do it all the same.")
    return ProSMAError(error.code, error.message, f"{error.remedy} {wayOut}".strip(), error.fit)


class BatchQueue(Job):
    """Segments many images, one after the other, through the one engine. A failed item does not stop the others.

    What an earlier batch has finished is left out. An item at which the engine dies is tried once more.

    :param source: where the items come from, see BatchSources. :param batch: BatchOptions.

    Public, beside what a Job has: ``items``. ``error`` is why the whole batch failed; functions in ``onProgress`` get the
    queue and the item that changed, or None for all.
    """

    def __init__(self, source, batch):
        super().__init__()
        self.items = []
        self._source = source
        self._batch = batch
        self._item = None
        self._task = None
        self._job = None
        self._began = 0.0
        self._durations = []  # of the items that were computed

    @property
    def failures(self):
        """The items that failed."""
        return self.having(BatchItem.FAILED)

    def having(self, state):
        return [item for item in self.items if item.state == state]

    @property
    def fraction(self):
        """How much of the batch is done, 0 to 1."""
        ended = len(self.items) - len(self.having(BatchItem.WAITING)) - len(self.having(BatchItem.RUNNING))
        running = self._item.fraction if self._item is not None else 0.0
        return (ended + running) / len(self.items) if self.items else 0.0

    @property
    def secondsLeft(self):
        """By the mean duration of the items that were computed; None before the first."""
        if not self._durations or self._item is None:
            return None
        left = len(self.having(BatchItem.WAITING)) + 1 - self._item.fraction
        return left * sum(self._durations) / len(self._durations)

    def start(self):
        """Begin; returns at once."""
        self.state = self.RUNNING
        try:
            self._source.list(self._batch, self._onListed, self._failAll)
        except ProSMAError as error:
            self._failAll(error)
        return self

    def cancel(self, reason=None):
        """Stop. What is finished stays; starting the same batch again goes on from there."""
        if not self.isActive:
            return
        self._end(self.CANCELLED, ProSMAError("cancelled", reason or _("The batch was cancelled.")))

    # ---- one item after the other

    def _onListed(self, items):
        if not self.isActive:
            return
        self.items = [BatchItem(name, task) for name, task in items]
        self._tell(self.onProgress, None)
        self._later()

    def _later(self):
        qt.QTimer.singleShot(0, self._next)

    def _next(self):
        if not self.isActive:
            return
        self._item = next(iter(self.having(BatchItem.WAITING)), None)
        if self._item is None:
            self._end(self.FINISHED)
            return
        self._item.state = BatchItem.RUNNING
        self._item.attempts += 1
        self._began = time.monotonic()
        self._tell(self.onProgress, self._item)
        self._task = EventLoopTask(self._item.task.prepare(), self._onPrepared, self._onItemError).start()

    def _onPrepared(self, found):
        self._task = None
        if found:
            self._endItem(found)
            return
        try:
            self._job = self._item.task.start()
        except ProSMAError as error:
            self._onItemError(error)
            return
        self._job.onProgress.append(self._onJobProgress)
        self._job.onEnd.append(self._onJobEnd)

    def _onJobProgress(self, job):
        self._item.stage, self._item.fraction = job.stage, job.fraction
        self._tell(self.onProgress, self._item)

    def _onJobEnd(self, job):
        self._job = None
        if not self.isActive:
            return
        if job.state != job.FINISHED:
            self._onItemError(job.error)
            return
        found = self._item.task.finish(job)
        if not found:
            self._durations.append(time.monotonic() - self._began)
        self._endItem(found)

    def _endItem(self, found):
        item = self._item
        item.edited = found == "edited"
        item.end(BatchItem.THERE if found else BatchItem.FINISHED)
        self._afterItem()

    def _onItemError(self, error):
        self._task = None
        item = self._item
        error = _withWayOut(asProSMAError(error))
        logging.warning("ProSMA: batch: %s: %s", item.name, error)
        if error.code in CODES_FOR_ALL:
            self._failAll(error)
            return
        if error.code == "engine_stopped" and item.attempts < ATTEMPTS:
            item.state, item.stage, item.fraction = BatchItem.WAITING, "", 0.0
            self._tell(self.onProgress, item)
            self._later()
            return
        item.end(BatchItem.FAILED, error)
        self._afterItem()

    def _afterItem(self):
        item, self._item = self._item, None
        self._tell(self.onProgress, item)
        self._later()

    # ---- the end

    def _failAll(self, error):
        if self.isActive:
            self._end(self.FAILED, error)

    def _end(self, state, error=None):
        self.state = state  # before the job is cancelled, which tells its end
        if self._task is not None:
            self._task.cancel()
            self._task = None
        if self._job is not None:
            self._job.cancel()
            self._job = None
        self._item = None
        for item in self.items:
            if item.state in (BatchItem.WAITING, BatchItem.RUNNING):
                item.end(BatchItem.CANCELLED)
        self._tell(self.onProgress, None)
        super()._end(state, error)
