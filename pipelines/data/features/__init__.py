"""Features computed from one example at a time, with nothing learned from the data: they cost no privacy."""
