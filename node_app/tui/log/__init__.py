"""Log: what the daemon has said."""
