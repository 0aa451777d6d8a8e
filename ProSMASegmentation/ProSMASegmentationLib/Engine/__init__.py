"""The engine as a child process, and the jobs it does.

| file | what it holds |
| --- | --- |
| `EngineClient` | keeps one process warm and talks to it; how a job is cancelled there |
| `SegmentationJob` | one run on one volume: hand over, compute, write; Cancel leaves the scene as it was |
| `FileJob` | one run whose result the engine writes into a file |
| `GateMapJob` | one run that leaves the share of open gates as a volume |
"""
