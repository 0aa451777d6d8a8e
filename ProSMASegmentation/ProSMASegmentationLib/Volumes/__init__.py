"""Volume nodes read and written, regions of interest, samples."""
