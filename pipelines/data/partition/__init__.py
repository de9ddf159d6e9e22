"""The division of examples among clients or users."""
