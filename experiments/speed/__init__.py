"""Compares the speed of the pipelines with their peers: `python -m experiments.speed`."""
