"""What becomes of a result besides a label map: DICOM objects, contours, pictures, surfaces."""
