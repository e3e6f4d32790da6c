"""Trained fusion: encoders, tokens, a strategy, a head. Imports torch: import its modules late."""
