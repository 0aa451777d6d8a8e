"""From a run to a model package: export, model card, icon."""
