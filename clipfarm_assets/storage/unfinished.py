"""Writes to a folder store that a process was killed in: staged files that nobody will rename.

On S3 there is nothing of the kind to list: parts of unfinished uploads are no objects, and are
removed by a lifecycle rule of the bucket.
"""

import os
import re
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from clipfarm_assets.storage.backend import ObjectInfo
from clipfarm_assets.storage.keys import check_prefix
from clipfarm_assets.storage.objects import ObjectStore

# How obstore names what it will rename to "name"; `keys` refuses such names as keys.
_STAGED: Final = re.compile(r"[^/]+#\d+", flags=re.DOTALL)
_NUMBER: Final = re.compile(r"#\d+\Z")


def unfinished_writes(store: ObjectStore, prefix: str) -> Iterator[ObjectInfo]:
    """The staged files below the folder `prefix`, sorted; also those that are being written.

    Anybody's files that are named like that are among them, see `written_key`. Symbolic links are
    neither followed nor listed.
    """
    root = _root(store)
    folder = check_prefix(prefix)
    if root is None or (root / folder).resolve() != root / folder:
        return
    found = []
    for place, _, names in os.walk(root / folder):  # which follows no link
        for name in filter(_STAGED.fullmatch, names):
            path = Path(place, name)
            status = path.lstat()
            if stat.S_ISREG(status.st_mode):
                modified = datetime.fromtimestamp(status.st_mtime, UTC)
                key = path.relative_to(root).as_posix()
                found.append(ObjectInfo(key, status.st_size, modified))
    yield from sorted(found)


def written_key(staged: ObjectInfo) -> str:
    """The key that a staged file is to be renamed to, if it is one."""
    return _NUMBER.sub("", staged.key)


def discard_unfinished(store: ObjectStore, info: ObjectInfo, cutoff: datetime) -> bool:
    """Remove a staged file, if it is still there and was written last before `cutoff`."""
    root = _root(store)
    if root is None or not _STAGED.fullmatch(Path(info.key).name):
        return False
    path = root / info.key
    try:
        status = path.lstat()
        is_old = datetime.fromtimestamp(status.st_mtime, UTC) < cutoff
        if path.resolve() != path or not stat.S_ISREG(status.st_mode) or not is_old:
            return False
        path.unlink()
    except FileNotFoundError:  # finished, or removed by another collector
        return False
    return True


def _root(store: ObjectStore) -> Path | None:
    """The folder of a folder store; None on S3."""
    return None if store.url.startswith("s3://") else Path(store.url)
