"""The gateway's screens: a client of the control socket, never a host of the training."""
