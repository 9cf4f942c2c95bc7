"""Accepted or rejected, and why. Pure; touches neither the model nor the disk."""
