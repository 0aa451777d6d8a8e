"""Labelled folders and what is learnt from them.

| file | what it holds |
| --- | --- |
| `dataset` | folders of labelled images: cases, splits, faults |
| `label_grid` | labels brought onto their image's grid by their place |
| `statistics` | what a folder is like: sizes, spacings, intensities, labels |
| `patches` | training patches and their augmentation |
| `painting` | images painted from label maps alone |
| `pictures` | slices as pictures for people |
"""
