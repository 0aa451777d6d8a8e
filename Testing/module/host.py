"""A Slicer of its own, as a process: loads the panel and does what the command line says. Prints lines of JSON.

host.py segment MODEL_ID   click Segment on a small volume, print what came of it
host.py linger MODEL_ID    segment a small volume, click Segment on one that takes long, print the engine's process id, stay
host.py look MODEL_ID      print what lies in Slicer's temporary folder, once the module is loaded
host.py screen MODEL_ID    print what a person sees of the panel before the first click
host.py list MODEL_ID      print the rows of the list of models, and the details of each model as a click on it shows them

The folder Testing must be on PYTHONPATH. SLICER_TEMPORARY names the temporary folder, which Slicers of one user share.
"""

import json
import os
import sys

import scenes

import headless_slicer


def main():
    what, model = sys.argv[1:]
    app = headless_slicer.start()
    app.temporaryPath = os.environ.get("SLICER_TEMPORARY") or app.temporaryPath
    panel = headless_slicer.loadModule(scenes.MODULE).panel
    if what == "look":
        say(files=sorted(os.listdir(app.temporaryPath)))
        headless_slicer.close()
        return
    if what == "list":
        rows = panel.ui.modelList
        ids = [rows.item(row).data(headless_slicer.qt.Qt.UserRole) for row in range(rows.count)]
        say(
            rows=[[id, rows.item(row).text()] for row, id in enumerate(ids)],
            details=[details(panel, id) for id in ids if id],
        )
        headless_slicer.close()
        return
    engine = panel.logic.engine
    headless_slicer.processEvents(until=lambda: engine.state == "ready", timeout=240)
    if what == "screen":
        say(**screen(panel.ui))
        headless_slicer.close()
        return
    scenes.choose(panel, model)
    if what == "linger":
        scenes.segmented(panel, scenes.add_volume(scenes.texture((24, 24, 24)), "small"))
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
        headless_slicer.processEvents(until=lambda: panel.job.stage == "Segmenting", timeout=240)
        say(stage=panel.job.stage)
        headless_slicer.processEvents(until=lambda: False, timeout=240)
    say(torch="torch" in sys.modules)
    headless_slicer.close()


def screen(ui):
    """Red texts, tables and texts without content, open sections, and what is written."""
    from slicer.util import findChildren

    def seen(className):
        return [w for w in findChildren(ui.segmentButton.window(), className=className) if w.isVisible()]

    rows = [ui.modelList.item(row) for row in range(ui.modelList.count)]
    empty = [table.name for table in seen("QTableWidget") if table.rowCount == 0]
    return {
        "red": [label.text for label in seen("QLabel") if is_red(label)],
        "empty": empty + [text.name for text in seen("QPlainTextEdit") if not text.plainText],
        "open": [section.name for section in seen("ctkCollapsibleButton") if not section.collapsed],
        "fit": ui.fitLabel.text,
        "message": ui.messageLabel.text,
        "models": [row.data(headless_slicer.qt.Qt.UserRole) for row in rows],
    }


def is_red(label):
    """Whether a label's text is drawn in a red: much more red than green and blue."""
    label.ensurePolished()
    color = label.palette.color(label.foregroundRole())
    return bool(label.text) and color.red() > 2 * color.green() and color.red() > 2 * color.blue()


def details(panel, model):
    scenes.choose(panel, model)
    return panel.ui.modelDetails.plainText


def say(**facts):
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
