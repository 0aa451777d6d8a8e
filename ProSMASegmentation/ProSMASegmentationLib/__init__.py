"""Slicer's side of ProSMA: reading volumes, driving the engine process, writing segmentations, the panel.

Nothing in here imports torch; the engine runs in a process of its own (see EngineClient).
"""
