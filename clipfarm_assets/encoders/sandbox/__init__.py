"""Decoding in processes that may be killed: they see a file's bytes, and nothing else of a run."""
