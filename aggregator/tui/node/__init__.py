"""One node in depth."""
