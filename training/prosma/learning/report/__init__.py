"""Tables, curves, sheets and pages for people.

| file | what it holds |
| --- | --- |
| `reporting` | what the runs of a comparison show |
| `tables` | comparisons as Markdown |
| `curves` | the figure of a comparison |
| `sheet` | best, median and worst case of an evaluation |
| `page` | the page of all models and comparisons |
"""
