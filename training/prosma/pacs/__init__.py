"""Segments the series of a DICOMweb server and stores the results there: found, fetched, segmented, stored, each once.

| file | what it holds |
| --- | --- |
| `access` | the address, who may, and errors in words |
| `query` | which series are wanted |
| `server` | what is asked of a server: search, fetch, store |
| `marks` | how a segmentation on a server is known again |
| `round_trip` | the series, one after the other |
"""
