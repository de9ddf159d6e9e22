"""What runs in the fresh processes that ours is measured in: one module a kind of work, one JSON line out."""
