"""Training, evaluation and export. Imports the rest of prosma; the rest never imports this, except for the command line.

Its rooms stand in a row, each of which imports only what is before it:

| file | what it holds |
| --- | --- |
| `recipe` | everything needed to train a model again, as one YAML file |
| `checkpoints` | checkpoints of runs, read as data, never as code, and which recipe goes on with one |
| `data/` | labelled folders, their statistics, training patches |
| `strokes/` | objects in any images, and a simulated person who strokes them |
| `judge/` | overlap and surface distances |
| `packing/` | from a run to a model package |
| `fit/` | planning, loss, training, fine-tuning |
| `compare/` | grids of trained networks on clean and degraded images |
| `report/` | tables, curves, sheets and pages |
"""
