"""Writing an object that only one process may write at a time, while it may have been overtaken."""

from collections.abc import Callable

from clipfarm_assets.storage.errors import ObjectExists
from clipfarm_assets.storage.objects import ObjectStore


def put_guarded(
    store: ObjectStore, key: str, data: bytes, guard: Callable[[], None], *, is_new: bool
) -> None:
    """Write `data` under `key` if `guard` lets it, and over nothing that was written since it did.

    A request that is on its way may arrive after its sender was suspended, and somebody else has
    done the work. So on S3 the write has a condition: that there is no object, or still the one
    which was read before the guard was asked. In a folder a write takes a moment, and has none.

    Args:
        store: Where.
        key: The object; all who write it do so by this function.
        data: Its bytes.
        guard: Raises if it must not be written any more; asked right before each try.
        is_new: Whether there is no object as far as is known: that costs one request, else two.

    Raises:
        ObjectChanged: Others wrote it again and again meanwhile.
        Exception: What `guard` raises.
    """
    if not store.url.startswith("s3://"):
        guard()
        store.put(key, data)
        return
    if is_new:
        guard()
        try:
            store.put_if_absent(key, data)
        except ObjectExists:
            pass  # a run that was killed has left it, or this one was overtaken
        else:
            return

    def change(_current: bytes | None) -> bytes:
        guard()
        return data

    store.update(key, change)
