"""The service beside the broker: intake -> verify -> ledger -> fold -> release."""
