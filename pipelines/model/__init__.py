"""The architecture and its starting weights, independent of any framework."""
