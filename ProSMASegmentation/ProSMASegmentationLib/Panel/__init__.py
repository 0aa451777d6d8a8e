"""What a person sees: the panel and its sections."""
