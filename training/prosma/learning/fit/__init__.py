"""Planning, training and fine-tuning."""
