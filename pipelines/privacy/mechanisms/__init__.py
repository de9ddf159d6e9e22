"""What private runs do to their units: one object that drives training and accounting."""
