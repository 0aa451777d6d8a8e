"""From runs to a model package.

| file | what it holds |
| --- | --- |
| `export` | the package from the averaged weights of a run, or of several |
| `runs` | runs read, and whether several belong in one package |
| `card` | the model card, from records alone |
| `icon` | a drawn picture where images may not be shown |
| `fit_statistics` | what the package keeps of the training images, to tell which image fits |
| `presence_statistics` | what it keeps to tell pictures without any structure |
| `quality_prior` | what bundled models have in common, on which packages with few cases lean |
| `quality_statistics` | what it keeps to tell how good a result is likely to be |
| `degraded_copies` | of validation cases, copies that are harder to segment, to learn that from |
| `faulty_copies` | of these, copies with the faults that it shall know again |
"""
