"""How examples are divided among clients: one file per scheme."""
