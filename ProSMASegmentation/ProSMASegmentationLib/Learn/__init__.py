"""Training cases and fine-tuning.

| file | what it holds |
| --- | --- |
| `LearningLogic` | the scripting interface of this room |
| `TrainingCase` | a corrected result on its way to disk |
| `TrainingFolder` | the corrected cases on disk |
| `LabelMatch` | which segment stands for which label |
| `FineTuning` | a fine-tuning in a process of its own |
"""
