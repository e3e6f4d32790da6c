"""Per-item state: what was done to which clip, in which stage, with what result.

The database is the truth; the SQLite object in the store's ``state/`` folder is its published
copy, in the format that other tools read.
"""
