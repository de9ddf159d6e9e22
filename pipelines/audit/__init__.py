"""Attacks on our own claims: lower bounds on epsilon, and what an adversary sees. Framework-free."""
