"""Recipes of experiments/: their sweeps, their records, and the check that a record still holds."""
