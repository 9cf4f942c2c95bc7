"""Status out and commands in, over a Unix socket: the server inside a daemon, the client in every view of it."""
