"""Removing things from a store: what nothing refers to any more, and clips for good.

Both look first and say what they would do; what they do is safe to kill and to repeat.
"""
