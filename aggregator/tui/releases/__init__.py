"""Releases: every version, how it does on held-out data, and the way back."""
