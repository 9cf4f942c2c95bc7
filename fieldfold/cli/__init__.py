"""The `fieldfold` command: its groups are entry points, loaded only when they are called."""
