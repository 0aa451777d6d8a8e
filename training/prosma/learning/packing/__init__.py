"""From a run to a model package.

| file | what it holds |
| --- | --- |
| `export` | the package from the run's averaged weights |
| `card` | the model card, from records alone |
| `icon` | a drawn picture where images may not be shown |
"""
