"""Which models there are, and whether one fits a volume."""
