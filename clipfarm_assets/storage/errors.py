"""What can go wrong with a store, apart from `FileNotFoundError`."""


class ObjectExists(FileExistsError):  # noqa: N818 - named for the state met, like FileExistsError
    """The key is taken by an object with other bytes."""


class ObjectChanged(RuntimeError):  # noqa: N818 - a state of the world that callers retry on
    """Compare-and-swap lost: the object is no longer the version that was read."""


class OutsideStore(ValueError):  # noqa: N818
    """A key that is not a plain path below the store's root, or a link that leads out of it."""


class StoreUnavailable(RuntimeError):  # noqa: N818
    """The store cannot be used: no such bucket, no rights, a stuck lock, a server that fails."""
