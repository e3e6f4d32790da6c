"""Where the time of a fusion run goes.

A part's time is without that of others that it calls. Parts of the run's own thread add up to its
wall time; what other threads do beside it is told apart, and adds up to nothing.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from benchmarks.common import medians

# delta: what is to be fused. check: sha256 and norms of vectors. rows: judging clips. write: making
# and storing a shard. wait: until the shard before is stored.
PARTS = ("delta", "read", "check", "rows", "fuse", "write", "ledger", "wait", "manifest", "publish")
BESIDE = ("write",)
COLUMNS = ("", *PARTS, "other", "sum", *(f"{part} beside" for part in BESIDE), "peak MiB")


def table_row(name: str, runs: Sequence[dict[str, Any]]) -> list[str]:
    """A row of `COLUMNS`: medians, in microseconds a clip."""
    clips = runs[0]["items"]
    parts = [medians([run["parts"] for run in runs], part)[0] for part in PARTS]
    beside = [medians([run["beside"] for run in runs], part)[0] for part in BESIDE]
    seconds, peak = medians(runs, "seconds", "peak_mib")
    figures = [*parts, seconds - sum(parts), seconds, *beside]
    return [name, *(f"{figure / clips * 1e6:.0f}" for figure in figures), f"{peak:.0f}"]


class Stopwatch:
    """Seconds by part, of the thread that made it and of all others."""

    def __init__(self) -> None:
        """Start in no part."""
        self.own: Counter[str] = Counter()
        self.beside: Counter[str] = Counter()
        self._thread = threading.get_ident()
        self._lock = threading.Lock()
        self._inside = threading.local()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block, without the parts in it, as `name`."""
        inside: list[float] = self._inside.__dict__.setdefault("children", [])
        inside.append(0.0)
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            children = inside.pop()
            if inside:
                inside[-1] += seconds
            own = threading.get_ident() == self._thread
            with self._lock:
                (self.own if own else self.beside)[name] += seconds - children

    def function(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function with its calls counted."""

        def call(*args: Any, **options: Any) -> Any:
            with self.part(name):
                return function(*args, **options)

        return call

    def generator(
        self, name: str, function: Callable[..., Iterable[Any]]
    ) -> Callable[..., Iterator[Any]]:
        """The function with the time counted that its result takes to give items."""

        def call(*args: Any, **options: Any) -> Iterator[Any]:
            items = iter(function(*args, **options))
            end = object()
            while True:
                with self.part(name):
                    item = next(items, end)
                if item is end:
                    return
                yield item

        return call


@contextmanager
def measured() -> Iterator[Stopwatch]:
    """Fills in the wall time of each part, by wrapping the functions that they consist of."""
    from clipfarm_assets.contracts.fused_shard import FusedShard
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines import fuse, manifest, vector_batches
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.pipelines.shard_rows import ShardRows

    watch = Stopwatch()
    functions: list[tuple[str, Any, str]] = [
        *(("delta", fuse, name) for name in ("available", "version_gate", "take_over_orphans")),
        ("delta", fuse, "fusion_delta"),
        ("check", vector_batches, "check_batch"),
        ("fuse", ShardRows, "add"),
        ("write", ShardRows, "shard"),
        ("write", FusedShard, "to_npz"),
        ("write", fuse, "put_shard"),
        *(("ledger", Ledger, name) for name in ("rows", "columns", "commit", "latest")),
        ("publish", Deployment, "restore"),
        ("publish", Deployment, "publish"),
        ("publish", Deployment, "text_states"),
        ("manifest", manifest, "update_manifest"),
    ]
    generators: list[tuple[str, Any, str]] = [
        ("read", fuse, "read_batches"),
        ("rows", fuse.FusionStage, "_filled"),
        ("wait", fuse, "one_behind"),
    ]
    with ExitStack() as stack:
        for wrap, owned in ((watch.function, functions), (watch.generator, generators)):
            for name, owner, attribute in owned:
                changed = wrap(name, getattr(owner, attribute))
                stack.enter_context(patch.object(owner, attribute, changed))
        yield watch
