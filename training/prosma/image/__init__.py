"""Images as arrays with a place in the patient.

| file | what it holds |
| --- | --- |
| `geometry` | `Image`, the grid that a model sees, images on one grid |
| `axes` | the two orders of axes, by name |
| `box` | boxes of voxels |
| `resampling` | interpolation between grids of the same extent |
| `grid_fit` | whether an image's grid suits a model |
| `modality` | what a DICOM header declares, against what a model takes |
| `intensity` | the intensity rules of model.json |
| `label_runs` | runs of voxels of one label |
| `labels` | extents and volumes of labels, terminology |
| `edited_segments` | how an edited segment is recognised |
| `tags` | the names under which facts are kept with segments and nodes |
| `reading` | images and label maps from files of any kind |
| `itk_paths` | names of files for SimpleITK |
| `writing` | label maps to files |
| `constants` | facts that both halves share |

Folders: `dicom` (series and folders of DICOM) and `formats` (a file format a file).
"""
