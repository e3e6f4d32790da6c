"""Objects on S3 or in a folder, their keys, and the byte formats they hold.

The ground floor: nothing here knows what a stage, a ledger or an encoder is.
"""
