"""The interface to training, the choice of an engine, and the two engines, which never meet."""
