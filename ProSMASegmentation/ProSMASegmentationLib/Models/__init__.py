"""Which models there are, and whether one fits a volume.

| file | what it holds |
| --- | --- |
| `ModelLibrary` | the packages that can be chosen; accepted licences |
| `PackageImport` | a package copied among the user's models, in a thread |
| `ModelFit` | whether a model suits the chosen volumes, before the click |
| `GridSentences` | what is said about a grid that does not suit |
"""
