"""Slicer's side of ProSMA: reading volumes, driving the engine process, writing segmentations, the panel.

Nothing in here imports torch; the engine runs in a process of its own (see EngineClient). Rules that both halves follow
live in the engine's light files, which need at most numpy and SimpleITK. They are imported as any other module: those of
the standard library alone at the top of a file, the others in the function that needs them, because Slicer starts without
numpy.
"""

from ProSMASegmentationLib.Base.Places import findEngine

findEngine()
