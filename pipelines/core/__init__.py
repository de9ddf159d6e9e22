"""What every room may use: errors, randomness, paths, provenance, and the life cycle of this process."""
