"""Model packages: what they hold, where they lie, how they become networks."""
