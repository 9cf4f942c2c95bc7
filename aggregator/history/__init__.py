"""What can be made of a ledger that nobody runs on: any version again, proof that it replays, a branch of it."""
