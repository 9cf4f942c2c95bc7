"""Who keeps the federation: of two aggregators, only one ever does."""
