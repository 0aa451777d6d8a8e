"""What is made from a result: volumes, measures, comparisons."""
