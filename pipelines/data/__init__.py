"""Datasets: one file per source."""
