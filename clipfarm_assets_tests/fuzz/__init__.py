"""Parsers of what others wrote, against whatever bytes: see `targets`."""
