"""What becomes of a result besides a label map.

| file | what it holds |
| --- | --- |
| `choices` | what a person can choose; light |
| `results` | a result's files by their endings |
| `source` | the DICOM images that a result was made from |
| `dicom_header` | what DICOM objects have in common: header, UIDs, references |
| `dicom_seg` | DICOM segmentations |
| `rtstruct` | DICOM structure sets |
| `contours` | outlines of masks, which these consist of |
| `preview` | a picture of three planes with outlines; `png` is its file |
| `surfaces` | meshes of labels: STL, OBJ |
"""
