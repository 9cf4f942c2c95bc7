"""A fleet under random faults: `python -m benchmarks.chaos --seed S`."""
