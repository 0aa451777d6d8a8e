"""Tables, curves, sheets and pages for people."""
