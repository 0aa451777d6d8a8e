"""Correcting a result: strokes, places to review, moving borders. Light: Slicer's process imports it."""
