# The steps of Slicer that describe and pack an extension; nothing to do without Slicer.
