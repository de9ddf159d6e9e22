"""Test kits of others, held to our accounting and to our engines: see README.md."""
