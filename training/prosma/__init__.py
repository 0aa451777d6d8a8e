"""ProSMA: proximal-sparse skip segmentation. This file stays light: Slicer's process may import it, and it has no torch."""

__version__ = "1.0.0"
