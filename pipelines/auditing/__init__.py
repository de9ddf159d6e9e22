"""Attacks on this project's own claims."""
