"""The typed configuration: its sections, the rules between them, and one line for every mistake."""
