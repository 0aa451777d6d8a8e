"""How good a model is on labelled images: overlap and surface distance per case and label, with intervals."""
