"""Training: the present run, the curves, and what became of every update."""
