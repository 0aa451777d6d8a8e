"""Grids of trained networks, compared on clean and degraded images.

| file | what it holds |
| --- | --- |
| `grid` | the plan of a comparison |
| `degrading` | noise, speckle and lost contrast of a given strength |
| `comparing` | each variant with each seed trained, exported and scored |
| `paired` | paired differences with bootstrap intervals |
"""
