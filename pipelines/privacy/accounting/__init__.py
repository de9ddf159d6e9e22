"""Epsilon of a mechanism, by several accountants, and the least noise for a target."""
