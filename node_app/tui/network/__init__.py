"""Network: the broker, what went to and fro, and what waits to be sent."""
