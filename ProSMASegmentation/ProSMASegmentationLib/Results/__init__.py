"""Segments: written, recognised, measured, kept probabilities."""
