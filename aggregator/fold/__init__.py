"""How contributions become a step of the global model: one file a published method, pure and replayable."""
