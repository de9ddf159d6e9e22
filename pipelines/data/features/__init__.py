"""Features computed from one example at a time with fixed constants. Nothing is fitted, so they cost a run no privacy.

The constants themselves may have been chosen by their accuracy on private data. No epsilon of a run covers that choice.
"""
