"""Segments the series of a DICOMweb server and stores the results there: found, fetched, segmented, stored, each once."""
