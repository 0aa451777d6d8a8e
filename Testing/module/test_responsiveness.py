"""Slicer stays usable during a run: a timer of 10 ms in the event loop is never kept waiting for long."""

import time

import numpy as np
import pytest
import scenes

from headless_slicer import click, processEvents, qt

LONGEST_WAIT = 0.1  # seconds


class Pulse:
    """A timer of 10 ms that notes how long the event loop kept it waiting, and during which stage of the job."""

    def __init__(self, panel):
        self.panel = panel
        self.waits = []
        self._last = time.perf_counter()
        self._timer = qt.QTimer()
        self._timer.setTimerType(qt.Qt.PreciseTimer)
        self._timer.setInterval(10)
        self._timer.connect("timeout()", self._beat)
        self._timer.start()

    def _beat(self):
        now = time.perf_counter()
        self.waits.append((now - self._last, self.panel.ui.stageLabel.text or "after"))
        self._last = now

    def stop(self):
        self._timer.stop()

    def longest(self):
        return max(self.waits)


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


def test_a_timer_of_10_ms_never_waits_long_during_a_run(panel):
    """Three tries: other programs of a busy machine may hold a process up now and then, our own code each time."""
    scenes.choose(panel, "coarse")
    volume = scenes.add_volume(scenes.texture((96, 192, 192)))
    longest = []
    while len(longest) < 3 and min(longest, default=1) >= LONGEST_WAIT:
        job, pulse = run_under_pulse(panel, volume, timeout=60)
        assert len(pulse.waits) > 10
        assert scenes.label_map(job.segmentationNode, volume).any()
        longest.append(pulse.longest()[0])
    assert min(longest) < LONGEST_WAIT, (longest, sorted(pulse.waits)[-5:])


@pytest.mark.slow
def test_a_timer_of_10_ms_never_waits_long_during_a_run_on_a_large_volume(panel):
    """512 x 512 x 300 voxels, with labels almost everywhere: the worst case for handing over and for writing."""
    scenes.choose(panel, "coarse")
    block = scenes.texture((75, 128, 128))
    volume = scenes.add_volume(np.tile(block, (4, 4, 4)))
    job, pulse = run_under_pulse(panel, volume, timeout=500)
    print("seconds", job.seconds, "longest waits", sorted(pulse.waits)[-8:])
    assert pulse.longest()[0] < LONGEST_WAIT, sorted(pulse.waits)[-5:]
