"""The architecture and its starting weights, free of any framework."""
