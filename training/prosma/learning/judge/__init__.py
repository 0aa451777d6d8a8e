"""How good a model is: evaluation, comparisons, degraded images."""
