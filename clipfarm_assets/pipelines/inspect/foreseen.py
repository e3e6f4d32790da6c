"""A store and a ledger as they would be after a step: what is written to them stays in memory.

So the very functions that a run decides by can be asked what it would decide, without a trace.
"""

import json
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.ledger.rules import newest
from clipfarm_assets.ledger.schema import Item, microseconds
from clipfarm_assets.storage.objects import ObjectStore, S3Settings

_Layer = dict[str, dict[str, Item]]


class LookedAtOnly(RuntimeError):  # noqa: N818 - a fault of ours
    """Something tried to write to a store that is only looked at."""


class ForeseenStore(ObjectStore):
    """A store that is read, and in which some objects are taken to exist already."""

    def __init__(self, url: str, s3: S3Settings | None = None) -> None:
        """See `ObjectStore.open`."""
        super().__init__(url, s3)
        self.foreseen: set[str] = set()

    @contextmanager
    def supposing(self) -> Iterator[None]:
        """Objects that are foreseen meanwhile are forgotten at the end."""
        before = set(self.foreseen)
        try:
            yield
        finally:
            self.foreseen = before

    def exists(self, key: str) -> bool:
        """Whether `key` is there, or will be."""
        return key in self.foreseen or super().exists(key)

    def put(self, *_: object, **__: object) -> NoReturn:
        """Refused."""
        _refuse()

    def put_many(self, *_: object, **__: object) -> NoReturn:
        """Refused."""
        _refuse()

    def put_if_absent(self, *_: object, **__: object) -> NoReturn:
        """Refused."""
        _refuse()

    def swap(self, *_: object, **__: object) -> NoReturn:
        """Refused; and with it `update`, wherever that would change something."""
        _refuse()

    def delete(self, *_: object, **__: object) -> NoReturn:
        """Refused."""
        _refuse()


class ForeseenLedger(ReadOnlyLedger):
    """A ledger whose commits are seen by its `rows`, `columns`, `latest` and `ids_of_status`.

    The other queries tell of the database alone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See `Ledger.open`."""
        super().__init__(*args, **kwargs)
        self._layers: list[_Layer] = [{}]
        self._taken: dict[tuple[str, str], str] = {}

    @contextmanager
    def supposing(self) -> Iterator[None]:
        """What is committed meanwhile is forgotten at the end."""
        self._layers.append({})
        try:
            yield
        finally:
            self._layers.pop()

    def is_ahead(self, stage: str, video_id: str) -> bool:
        """Whether the clip's state is one that the database doesn't have yet."""
        return video_id in self._ahead(stage)

    def rows(self, stage: str, video_ids: Collection[str] | None = None) -> dict[str, Item]:
        """See `Ledger.rows`."""
        ahead = self._ahead(stage)
        found = super().rows(stage, video_ids)
        wanted = ahead if video_ids is None else video_ids
        return found | {i: ahead[i] for i in wanted if i in ahead}

    def columns(
        self, stage: str, video_ids: Collection[str], *names: str
    ) -> dict[str, tuple[Any, ...]]:
        """See `Ledger.columns`."""
        ahead = self._ahead(stage)
        found = super().columns(stage, video_ids, *names)
        return found | {i: _fields(ahead[i], names) for i in video_ids if i in ahead}

    def latest(self, stage: str, status: str) -> Item | None:
        """See `Ledger.latest`."""
        ahead = self._ahead(stage)
        stored = super().latest(stage, status)
        if stored is not None and stored.video_id in ahead:
            # No query tells the next one that stayed as it is: rare, and so all are read.
            known: Iterable[Item] = self.rows(stage).values()
        else:
            known = [*ahead.values(), *([] if stored is None else [stored])]
        return max(
            (item for item in known if item.status == status), key=_moment_and_id, default=None
        )

    def ids_of_status(self, stage: str, statuses: Collection[str]) -> list[str]:
        """See `Ledger.ids_of_status`."""
        ahead = self._ahead(stage)
        stored = [i for i in super().ids_of_status(stage, statuses) if i not in ahead]
        return sorted([*stored, *(i for i, item in ahead.items() if item.status in statuses)])

    def commit(self, stage: str, items: Iterable[Item], **_options: object) -> None:
        """Take states, in memory."""
        self._layers[-1].setdefault(stage, {}).update((item.video_id, item) for item in items)

    def commit_newer(self, stage: str, items: Iterable[Item], **_options: object) -> int:
        """Take the states that are newer than those known, in memory; their number."""
        offered = list(items)
        known = self.rows(stage, [item.video_id for item in offered])
        newer = [
            item
            for item in offered
            if (old := known.get(item.video_id)) is None
            or (item != old and newest(old, item) is item)
        ]
        self.commit(stage, newer)
        return len(newer)

    def merged_version(self, stage: str, key: str) -> str | None:
        """See `Ledger.merged_version`."""
        return self._taken.get((stage, key)) or super().merged_version(stage, key)

    def set_merged_version(self, stage: str, key: str, version: str) -> None:
        """Remember it, in memory."""
        self._taken[stage, key] = version

    def _ahead(self, stage: str) -> ChainMap[str, Item]:
        """The states committed here, of which the last one holds."""
        return ChainMap(*(layer.setdefault(stage, {}) for layer in reversed(self._layers)))


def _fields(item: Item, names: Iterable[str]) -> tuple[Any, ...]:
    return tuple(
        json.dumps(dict(item.details)) if name == "details" else getattr(item, name)
        for name in names
    )


def _moment_and_id(item: Item) -> tuple[int, str]:
    return microseconds(item.processed_at), item.video_id


def _refuse() -> NoReturn:
    raise LookedAtOnly("a store was to be changed by something that only looks at it")
