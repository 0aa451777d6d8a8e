"""Recipes, planning, training, fine-tuning and export."""
