"""Training cases and fine-tuning."""
