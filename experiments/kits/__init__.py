"""Test kits of other projects, applied to our accounting and our engines: see README.md."""
