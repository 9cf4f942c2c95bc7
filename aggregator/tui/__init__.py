"""The fleet on screens: a client of the control socket, never a host of the work."""
