"""DICOM files, series and folders as volumes, in the order of the way:

| file | what it holds |
| --- | --- |
| `files` | which files of a folder are DICOM, and their headers |
| `kinds` | DICOM objects that are no images of slices, in a person's words |
| `frames` | every image with its own place, pixel size and scaling |
| `volumes` | which images make up which volume |
| `pieces` | where a stack of images falls apart |
| `grid` | from the places of the images to one regular grid |
| `values` | the voxels |
| `reading` | all of that: a volume, or a refusal |
"""
