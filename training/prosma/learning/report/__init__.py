"""Model cards, tables, curves, pictures and pages."""
