"""What work costs, counted: requests, forwards, statements. Counts, not seconds.

A cost is measured at two sizes: what grows with the clips is theirs, the rest is the run's.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from clipfarm_assets_tests.pipelines.kit import World
from clipfarm_assets_tests.stores import CountingStore

Costs = Counter[str]


class CountedWorld(World):
    """A world whose store and ledger are counted."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.store = CountingStore(str(self.root / "store"))
        self.deployment = type(self.deployment)(
            self.store, self.deployment.layout, self.deployment.ledger
        )

    @contextmanager
    def counted(self) -> Iterator[Costs]:
        """Fills in what was asked of store and ledger in the block.

        Requests are named by kind and room: ``get raw``, ``put embeddings``. Statements count as
        often as they are sent: many rows in one are one.
        """
        costs: Costs = Counter()

        def statement(_connection, _cursor, text, _parameters, _context, _many) -> None:
            costs[f"ledger {text.split(maxsplit=1)[0].lower()}"] += 1

        self.store.reset()
        sa.event.listen(sa.Engine, "before_cursor_execute", statement)
        try:
            yield costs
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", statement)
        for kind, key in list(self.store.calls):
            costs[f"{kind} {_room(key)}"] += 1


def _room(key: str) -> str:
    """The part of the store a key lies in: raw, embeddings, fused, state, metadata, …."""
    parts = key.split("/")
    return parts[1] if len(parts) > 1 else key


def growth(measure: Callable[[int], Costs], n: int) -> tuple[Costs, Costs]:
    """What `n` more items cost, and what a run costs beside its items, from `n` and ``2 n``."""
    once, twice = measure(n), measure(2 * n)
    more = Counter({name: twice[name] - once[name] for name in once.keys() | twice.keys()})
    fixed = Counter({name: once[name] - more[name] for name in once})
    return _told(more), _told(fixed)


def _told(costs: Costs) -> Costs:
    return Counter({name: count for name, count in sorted(costs.items()) if count})
