"""The command `prosma`: a command a file, `app` is where it starts.

| file | what it holds |
| --- | --- |
| `app` | the commands put together, and what becomes of an error or Ctrl+C |
| `segment` | `prosma segment`; `telling` is what it tells of its cases |
| `prompt` | `prosma prompt`, a mask from strokes |
| `models` | `prosma models` |
| `report` | `prosma report`, of a batch |
| `dicomweb` | `prosma dicomweb`, the series of a PACS |
| `evaluate` | `prosma evaluate` |
| `plan` | `prosma plan` |
| `train` | `prosma train` |
| `export` | `prosma export` |
| `finetune` | `prosma finetune` |
| `compare` | `prosma compare` |
| `results` | `prosma results`, the page of all models and comparisons |
| `benchmark` | `prosma benchmark` |
| `completion` | `prosma completion` |
| `licence_question` | whether a person accepts a model's licence |
| `common` | options and checks that several commands share |
| `exit_codes` | the exit codes of all commands |
"""

from .app import main

__all__ = ["main"]
