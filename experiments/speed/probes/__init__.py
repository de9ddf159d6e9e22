"""Programs that measure our engines in fresh processes: one module for each kind of work; each prints a JSON line."""
