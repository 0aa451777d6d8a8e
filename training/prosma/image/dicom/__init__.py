"""DICOM files, series and folders: which images make up a volume, where they lie and what their pixels mean."""
