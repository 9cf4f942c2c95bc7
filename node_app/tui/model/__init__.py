"""Model: what is served, what was released, and how each version did on the data here."""
