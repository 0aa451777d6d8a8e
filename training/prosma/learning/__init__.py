"""Training, evaluation and export. Imports the rest of prosma; the rest never imports this, except for the command line."""
