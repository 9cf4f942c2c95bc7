"""Data: what was read, what was dropped and why, the targets, and each feature beside the fleet's statistics."""
