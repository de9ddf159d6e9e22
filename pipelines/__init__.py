"""Accuracy and privacy of one model on one dataset, trained four ways."""
