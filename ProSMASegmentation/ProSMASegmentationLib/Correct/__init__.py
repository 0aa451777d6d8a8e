"""Changing a result: sensitivity, review, largest part."""
