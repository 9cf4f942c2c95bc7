"""Sensor files in, normalised windows out: sources -> series -> split -> windows -> batches."""
