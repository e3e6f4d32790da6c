"""Which object keys a store accepts. The same rule on S3 and on a folder."""

import re

from clipfarm_assets.storage.errors import OutsideStore

#: Where a folder store keeps its lock files; not addressable as a key, never listed.
LOCKS = ".locks"

# The keys of the layout, known as good at one glance. Hidden names are left to the rule in full.
_USUAL = re.compile(
    r"(?:[A-Za-z0-9_=-][A-Za-z0-9_=.-]{0,99}/){0,8}[A-Za-z0-9_=-][A-Za-z0-9_=.-]{0,99}"
)

_SEGMENT = re.compile(r"[^/\\\x00-\x1f\x7f]{1,240}")
# obstore stages writes of "name" in "name#1" and hides such names from listings.
_STAGING = re.compile(r"#\d+$")
_MAX_KEY_BYTES = 1024  # S3's limit


def check_key(key: str) -> str:
    """Return `key` if it is a plain relative path, or raise `OutsideStore`."""
    reason = None if _USUAL.fullmatch(key) else _fault(key)
    if reason:
        msg = f"bad object key {key!r}: {reason}; keys are relative paths such as 'a/b.npy'"
        raise OutsideStore(msg)
    return key


def check_prefix(prefix: str) -> str:
    """Return the folder `prefix` without its trailing slash; ``""`` is the whole store."""
    folder = prefix.removesuffix("/")
    return check_key(folder) if folder else ""


def _fault(key: str) -> str | None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if size > _MAX_KEY_BYTES:
        return f"it is longer than {_MAX_KEY_BYTES} bytes"
    segments = key.split("/")
    for segment in segments:
        if segment in {"", ".", ".."}:
            return f"it has the segment {segment!r}"
        if not _SEGMENT.fullmatch(segment):
            return "a segment is too long or has a backslash or a control character"
        if _STAGING.search(segment):
            return "a segment ends in '#' and digits, which is how unfinished writes are named"
    if segments[0] == LOCKS:
        return f"{LOCKS!r} is where the store keeps its lock files"
    return None
