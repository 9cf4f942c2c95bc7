"""A fleet under a virtual clock: the same fold, codec and runtimes, and nothing that waits."""
