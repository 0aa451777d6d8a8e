"""Files of images, a format a file: read here, or checked where ITK reads them.

| file | what it holds |
| --- | --- |
| `nifti` | NIfTI; `nifti_header` its headers, `nifti_writing` label maps to it |
| `nrrd` | headers of NRRD |
| `metaimage` | MetaImage |
| `mgh` | FreeSurfer's MGH and MGZ |
| `gipl` | GIPL |
| `pictures` | PNG, JPEG, TIFF, BMP |
| `others` | formats that are not read, and what to do with them |
| `parts` | which other files hold the voxels of a header |
| `unpacking` | gzip, with a check that no byte is missing |
| `lengths` | units of length |
"""
