"""Labelled folders: cases, statistics, patches, and pictures of their slices."""
