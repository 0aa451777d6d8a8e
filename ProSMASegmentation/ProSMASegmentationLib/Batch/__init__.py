"""Many volumes or files, one after the other."""
