"""Training, evaluation and export. Imports the rest of prosma; the rest never imports this, except for the command line.

Its rooms stand in a row, each of which imports only what is before it: data, judge, packing, fit, compare, report.
"""
