"""Many volumes or files, one after the other.

| file | what it holds |
| --- | --- |
| `BatchSources` | where the items come from: scene, folder, sequence |
| `BatchTasks` | what is done with each kind of item |
| `BatchQueue` | the items in their order, and their states |
| `SequenceResults` | the segmentations of a sequence's frames |
"""
