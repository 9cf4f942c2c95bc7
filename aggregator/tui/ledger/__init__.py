"""Ledger: what was decided on every update, and the proof that the model is what it says."""
