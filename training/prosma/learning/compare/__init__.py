"""Grids of trained networks, compared on clean and degraded images."""
