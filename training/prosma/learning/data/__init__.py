"""Labelled folders: cases, statistics, patches."""
