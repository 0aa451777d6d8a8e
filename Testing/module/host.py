"""A Slicer of its own, as a process: loads the panel and does what the command line says. Prints lines of JSON.

host.py segment MODEL_ID   click Segment on a small volume, print what came of it
host.py linger MODEL_ID    click Segment on a volume that takes long, print the engine's process id, and stay

The folder Testing must be on PYTHONPATH.
"""

import json
import sys

import scenes

import headless_slicer


def main():
    what, model = sys.argv[1:]
    panel = headless_slicer.loadModule(scenes.MODULE).panel
    engine = panel.logic.engine
    headless_slicer.processEvents(until=lambda: engine.state == "ready", timeout=60)
    scenes.choose(panel, model)
    size = 24 if what == "segment" else 128
    scenes.select(panel, scenes.add_volume(scenes.texture((size, size, size))))
    say(problem=engine.problem, enabled=panel.ui.segmentButton.enabled, tip=panel.ui.segmentButton.toolTip)
    say(message=panel.ui.messageLabel.text, engine=engine.processId, report=panel._setup.check.report())
    if what == "segment" and panel.ui.segmentButton.enabled:
        job = scenes.click_segment(panel)
        say(state=job.state, error=str(job.error), asked=[dialog.text for dialog in headless_slicer.messages])
    elif what == "segment":
        headless_slicer.click(panel.ui.setupCollapsibleButton)
        headless_slicer.click(panel.ui.installButton)
        say(message=panel.ui.messageLabel.text)
    else:
        headless_slicer.click(panel.ui.segmentButton)
        headless_slicer.processEvents(until=lambda: panel.job.stage == "Segmenting", timeout=60)
        say(stage=panel.job.stage)
        headless_slicer.processEvents(until=lambda: False, timeout=60)
    say(torch="torch" in sys.modules)
    headless_slicer.close()


def say(**facts):
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
