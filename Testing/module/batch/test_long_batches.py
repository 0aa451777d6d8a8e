"""Batches that take long: many cases, killed processes, and whether Slicer stays usable meanwhile."""

import os
import signal
import sys
from pathlib import Path

import pytest
import scenes
from batches import FOLDER, SECONDS, VOLUMES, add_files, add_volumes, files, nodes, run, start, states
from test_responsiveness import Pulse

from headless_slicer import processEvents


@pytest.mark.slow
@pytest.mark.parametrize("source", [VOLUMES, FOLDER])
def test_twenty_with_two_broken_ones_and_a_killed_engine(panel, batch, tmp_path, source):
    out = tmp_path / "out"
    if source == VOLUMES:
        add_volumes(20, broken=[4, 15])
        choices = {"source": VOLUMES}
    else:
        choices = {"source": FOLDER, "images": add_files(tmp_path / "images", 20, broken=[4, 15]), "results": out}
    results = nodes if source == VOLUMES else lambda: files(out)
    queue = start(panel, **choices)
    processEvents(until=lambda: queue.items and queue.items[8].state == "running", timeout=SECONDS)
    processEvents(until=lambda: len(batch.asked) >= 8, timeout=SECONDS)
    os.kill(panel.logic.engine.processId, signal.SIGKILL)
    processEvents(until=lambda: not queue.isActive, timeout=SECONDS)
    assert states(queue).count("finished") == 18
    named = [line.partition(":")[0] for line in panel.ui.batchReport.plainText.splitlines()]
    assert named == (["scan 4", "scan 15"] if source == VOLUMES else ["case04", "case15"])

    finished = results()
    if source == FOLDER:
        (out / "case07.seg.nrrd").unlink()
        finished.pop("case07.seg.nrrd")
        missing = 1
    else:
        missing = 0
    batch.asked.clear()
    again = run(panel, **choices)
    assert states(again).count("there already") == 18 - missing
    assert states(again).count("finished") == missing
    assert len(again.failures) == 2
    after = results()
    assert {key: after[key] for key in finished} == finished, "nothing is computed again"
    if source == VOLUMES:
        assert not batch.asked


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="SIGKILL")
def test_a_batch_of_a_killed_slicer_goes_on_in_the_next(panel, batch, models, tmp_path):
    import subprocess

    images, out = add_files(tmp_path / "images", 6), tmp_path / "out"
    host = Path(__file__).parents[1] / "batch_host.py"
    environment = {**os.environ, "PROSMA_HOME": str(models.home), "PYTHONPATH": str(host.parents[1])}
    command = [sys.executable, str(host), str(images), str(out)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        for line in other.stdout:
            if line.startswith("done 2"):
                break
        other.kill()
    before = files(out)
    assert 2 <= len(before) < 6
    queue = run(panel, FOLDER, results=out, images=images)
    assert states(queue).count("there already") == len(before)
    assert states(queue).count("finished") == 6 - len(before)
    after = files(out)
    assert {name: after[name] for name in before} == before
    assert sorted(file.name for file in out.iterdir()) == [*sorted(after), "prosma-results.jsonl"]


@pytest.mark.slow
def test_slicer_stays_usable_during_a_batch(panel, batch, tmp_path):
    volumes = [scenes.add_volume(scenes.texture((96, 192, 192), seed=seed), name=f"scan {seed}") for seed in range(2)]
    for results in (None, tmp_path / "out", tmp_path / "out"):
        pulse = Pulse(panel)
        queue = run(panel, results=results)
        processEvents(until=lambda pulse=pulse: len(pulse.waits) > 10)  # what is there already is found in no time
        pulse.stop()
        print(results, "longest work", max(pulse.work)[0], "longest wait", max(pulse.waits)[0])
        assert len(queue.failures) == 0
        assert len(queue.items) == len(volumes)
        pulse.check()
