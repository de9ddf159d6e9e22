"""Recipes with their records, and the benchmark of speed."""
