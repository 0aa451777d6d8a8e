"""Planning, training and fine-tuning.

| file | what it holds |
| --- | --- |
| `planning` | a recipe from the data alone |
| `mirror_rule` | along which axes flips are allowed, by the names of the labels |
| `loss` | Dice + cross entropy with deep supervision |
| `fitting` | the training loop, on Lightning |
| `prompting` | the same for promptable networks, which talk with simulated people |
| `sources` | labelled images, or images painted from label maps |
| `norm` | instance norm with a fast backward pass |
| `finetuning` | a new package from an old one and a few corrected cases |
| `progress` | how a long command tells how far it is, and how it is asked to end |
"""
