"""Volume nodes read and written.

| file | what it holds |
| --- | --- |
| `VolumeReader` | one volume node to the engine, slab by slab |
| `RegionOfInterest` | the part of a volume inside an ROI |
| `SampleVolumes` | the bundled samples |
| `ScalarOutput` | a new scalar volume, filled piece by piece |
| `NiftiFile` | a NIfTI file written slab by slab |
"""
