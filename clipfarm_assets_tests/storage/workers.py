"""What tests run in other processes: ``python workers.py <function> <pickled store> …``."""

import pickle
import sys

from clipfarm_assets.storage.objects import ObjectStore


def increment(store: ObjectStore, key: str, times: str) -> None:
    """Add one to a number, `times` times."""
    for _ in range(int(times)):
        store.update(key, lambda data: str(int(data or b"0") + 1).encode(), attempts=200)


def put_forever(store: ObjectStore, key: str, size: str) -> None:
    """Rewrite an object with `size` times the same byte, which changes with every write."""
    print("writing", flush=True)
    turn = 0
    while True:
        store.put(key, bytes([turn % 256]) * int(size))
        turn += 1


if __name__ == "__main__":
    # Our own of a moment ago: how a store travels to a spawned worker.
    globals()[sys.argv[1]](pickle.loads(bytes.fromhex(sys.argv[2])), *sys.argv[3:])
