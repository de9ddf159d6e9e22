"""Recipes of experiments/: what they measure, their records, and whether these still hold."""
