"""What becomes of a result besides a label map.

`choices`: what a person can choose; light. `results`: a result's file by its ending. `source`: the DICOM images that a
result was made from, which `dicom_seg` names in DICOM segmentations.
"""
