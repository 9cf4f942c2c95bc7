"""The program on every gateway: sensors -> windows -> train -> delta -> encode -> outbox, and back: adopt."""
