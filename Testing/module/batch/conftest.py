"""The section Batch of the panel."""

import pytest
import scenes

from headless_slicer import click


@pytest.fixture
def batch(panel, monkeypatch):
    """The panel's section Batch, opened, with the model ``coarse`` chosen. ``asked`` lists the engine's segmentations."""
    scenes.choose(panel, "coarse")
    if panel.ui.batchCollapsibleButton.collapsed:
        click(panel.ui.batchCollapsibleButton)
    section, engine = panel.batch, panel.logic.engine
    section.asked = []
    request = engine.request

    def listening(message, onEvent):
        if message["do"] == "segment":
            section.asked.append(message.get("output") or "scene")
        return request(message, onEvent)

    monkeypatch.setattr(engine, "request", listening)
    yield section
    if section.isActive:
        section.queue.cancel()
