"""The scripting interface and what is saved with a scene.

| file | what it holds |
| --- | --- |
| `SegmentationLogic` | segments volumes with models, with or without the panel |
| `ParameterNode` | the choices that belong to the case |
"""
