"""Many cases: which images make a case, what was written where, and from what."""
