"""How good a model is on labelled images.

| file | what it holds |
| --- | --- |
| `evaluation` | Dice and surface distances per case and label, with bootstrap intervals |
| `surfaces` | distances between the surfaces of two masks |
"""
