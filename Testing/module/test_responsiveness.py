"""Slicer stays usable during a run: between two turns of its event loop little is done, and nothing is waited for.

What is done is measured in the main thread's own processor time, what is waited for is counted: neither depends on what
else the machine is busy with.
"""

import contextlib
import subprocess
import threading
import time
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents, qt

LONGEST_WORK = 0.1  # seconds of the main thread's processor time
WAITING = ((time, "sleep"), (subprocess.Popen, "wait"), (threading.Thread, "join"), (threading.Event, "wait"))
QT_WAITING = ("waitForStarted", "waitForFinished", "waitForReadyRead", "waitForBytesWritten")


class Pulse:
    """A timer of 10 ms that notes what the event loop did between two beats, and during which stage of the job.

    `work`: processor time of the main thread, `waits`: time on the clock (to be printed: other programs may hold a process
    up), `blocked`: the calls, by the main thread, of functions that wait for something else.
    """

    def __init__(self, panel):
        self.panel = panel
        self.work = []
        self.waits = []
        self.blocked = []
        self._patches = contextlib.ExitStack()
        for owner, name in (*WAITING, *((qt.QProcess, name) for name in QT_WAITING)):
            self._patches.enter_context(mock.patch.object(owner, name, self._noting(getattr(owner, name), name)))
        self._last = time.thread_time(), time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.setInterval(10)
        self._timer.connect("timeout()", self._beat)
        self._timer.start()

    def _beat(self):
        now, stage = (time.thread_time(), time.perf_counter()), self.panel.ui.stageLabel.text or "after"
        for times, end, start in zip((self.work, self.waits), now, self._last, strict=True):
            times.append((end - start, stage))
        self._last = now

    def _noting(self, function, name):
        def noted(*arguments, **options):
            if threading.current_thread() is threading.main_thread():
                self.blocked.append(name)
            return function(*arguments, **options)

        return noted

    def stop(self):
        self._timer.stop()
        self._patches.close()

    def check(self):
        assert len(self.work) > 10
        assert max(self.work)[0] < LONGEST_WORK, sorted(self.work)[-5:]
        assert not self.blocked


def run_under_pulse(panel, volume, timeout):
    """Click Segment and let the pulse beat until a moment after the end. Returns (job, pulse)."""
    scenes.select(panel, volume)
    processEvents()
    pulse = Pulse(panel)
    click(panel.ui.segmentButton)
    job = panel.job
    processEvents(until=lambda: not job.isActive, timeout=timeout)
    processEvents(until=lambda: panel.ui.volumesTable.rowCount == 2)
    pulse.stop()
    assert job.state == job.FINISHED, str(job.error)
    return job, pulse


def test_little_is_done_between_two_turns_of_the_event_loop_during_a_run(panel):
    """The first result, with a new segmentation, and the second, in its place."""
    scenes.choose(panel, "coarse")
    volume = scenes.add_volume(scenes.texture((96, 192, 192)))
    for _ in range(2):
        job, pulse = run_under_pulse(panel, volume, timeout=60)
        assert scenes.label_map(job.segmentationNode, volume).any()
        pulse.check()


def test_surfaces_of_a_second_result_are_made_one_at_a_time(panel):
    """Slicer's converter cannot be divided: the longest wait is that for one surface, not for all that are shown."""
    from ProSMASegmentationLib.Base.EventLoopTask import EventLoopTask
    from ProSMASegmentationLib.Results.ResultWriter import ResultWriter

    labels = np.zeros((100, 200, 200), np.uint8)
    grid = np.ogrid[:100, :200, :200]
    for value, centre in enumerate(((30, 50, 50), (30, 150, 150), (70, 60, 150), (70, 150, 60), (50, 100, 100)), 1):
        labels[sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)) < 28**2] = value
    names = [{"value": value, "name": f"structure {value}", "color": [90, 90, 90 + value]} for value in range(1, 6)]
    package = SimpleNamespace(id="five", name="Five", version="1", sha256="0", labels=names)
    volume = scenes.add_volume(np.zeros(labels.shape, np.uint8))

    def write(node):
        ends, pulse = [], Pulse(panel)
        EventLoopTask(ResultWriter(volume, package, node).write(labels, [0, 0, 0]), ends.append, ends.append).start()
        processEvents(until=lambda: ends, timeout=60)
        processEvents()
        pulse.stop()
        return ends[0], max(pulse.work)[0]

    node, _work = write(None)
    began = time.thread_time()
    node.CreateClosedSurfaceRepresentation()
    all_at_once = time.thread_time() - began
    again, longest = write(node)
    assert again is node
    assert longest < all_at_once / 2
    scenes.assert_surfaces_are_current(node)


@pytest.mark.slow
def test_little_is_done_between_two_turns_of_the_event_loop_with_a_large_volume(panel):
    """512 x 512 x 300 voxels, with labels almost everywhere: the worst case for handing over and for writing."""
    scenes.choose(panel, "coarse")
    block = scenes.texture((75, 128, 128))
    volume = scenes.add_volume(np.tile(block, (4, 4, 4)))
    job, pulse = run_under_pulse(panel, volume, timeout=500)
    print("seconds", job.seconds, "longest waits", sorted(pulse.waits)[-8:])
    pulse.check()


def test_a_pulse_notes_work_and_waiting(panel):
    pulse = Pulse(panel)
    processEvents(until=lambda: len(pulse.work) > 10)
    pulse.check()
    until = time.thread_time() + 1.5 * LONGEST_WORK
    while time.thread_time() < until:
        pass
    processEvents(until=lambda: max(pulse.work)[0] > LONGEST_WORK)
    threading.Event().wait(0.001)
    pulse.stop()
    threading.Event().wait(0.001)
    assert pulse.blocked == ["wait"]
