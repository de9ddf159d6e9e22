"""Features computed from one example at a time by fixed constants: nothing is fitted, so a run pays nothing for them.

Constants that somebody chose by their score on private data are another matter: no epsilon of a run counts that choice.
"""
