"""One run from configuration to result, and sweeps of them."""
