"""The steps of embedding that compute: fetch -> decode -> encode. Engines decide where they run.

Each is the same code whoever calls it: threads of one process (`embed_local`) or processes all over
a cluster (`cluster`). None of them writes anything, so that one that is repeated does no harm.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import (
    ContentMissing,
    Deadline,
    Encoded,
    Encoder,
    ModelMismatch,
    Source,
)
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.ledger.schema import Item
from clipfarm_assets.pipelines.flow import ByteBudget, ordered_map
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.workers import WorkPlan
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore


@dataclass(frozen=True, slots=True)
class Clip:
    """What the stage needs of an index row, and how the clip stands."""

    video_id: str
    source_hash: str
    captured_at: str
    metadata: Mapping[str, str]
    before: Item | None = None


@dataclass(frozen=True, slots=True)
class _Fetched:
    """A clip and its raw object; None where there is none."""

    clip: Clip
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Ready:
    """A clip after decoding: prepared input, or what it waits for, or an error."""

    clip: Clip
    prepared: Any = None
    waits: str = ""
    error: Exception | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether there is something for the model."""
        return not self.waits and self.error is None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A clip after the model: what it gave, or an error, or what the clip waits for."""

    clip: Clip
    result: Encoded | Exception | None = None
    waits: str = ""


def absent(raw_key: str) -> str:
    """Why a clip without a raw object waits, in the words that its state keeps."""
    return f"{raw_key} does not exist"


@dataclass(frozen=True)
class Steps:
    """The steps of one modality over one store. Thread-safe.

    One item that fails is one item that fails. A store that fails, a model that cannot be loaded,
    or one that must not be used, is not the item's fault: such errors are raised.

    Attributes:
        store: Where raw objects are read.
        layout: Where they lie.
        modality: What is embedded.
        deadline_seconds: Time after which one item's decoding is given up.
        meters: What is told of each step.
    """

    store: ObjectStore
    layout: Layout
    modality: Modality
    deadline_seconds: float
    meters: Meters = field(default_factory=Meters)

    def ready(
        self,
        clips: Iterable[Clip],
        encoder: Callable[[], Encoder],
        plan: WorkPlan,
        prefetch_bytes: int,
        give_up: Callable[[], None],
    ) -> Generator[Ready, None, None]:
        """Fetch and decode, in the clips' order.

        Args:
            clips: Taken as they are needed, in the consumer's thread.
            encoder: Asked when the first raw object was found.
            plan: Workers, and how far they may run ahead.
            prefetch_bytes: Bound of raw objects in memory, see `flow.ByteBudget`.
            give_up: Called if this ends before the clips do.
        """
        budget = ByteBudget(prefetch_bytes)
        with ExitStack() as stack:
            fetched = stack.enter_context(
                closing(
                    ordered_map(
                        lambda clip: self._fetch(clip, budget),
                        clips,
                        workers=plan.fetch_workers,
                        ahead=plan.fetch_ahead,
                        admit=budget.admit,
                    )
                )
            )
            yield from stack.enter_context(
                closing(
                    ordered_map(
                        lambda found: self._prepare(found, budget, encoder),
                        fetched,
                        workers=plan.decode_workers,
                        ahead=plan.decode_ahead,
                        give_up=give_up,
                    )
                )
            )

    def _fetch(self, clip: Clip, budget: ByteBudget) -> _Fetched:
        raw: bytes | None = None
        with self.meters.measured("fetch") as tally:
            try:
                raw = self.store.get(self._raw_key(clip))
            except FileNotFoundError:
                pass  # it is waited for
            finally:
                budget.arrived(len(raw or b""))
            tally.items = tally.requests = 1
            tally.bytes = len(raw or b"")
        return _Fetched(clip, raw)

    def _prepare(
        self, fetched: _Fetched, budget: ByteBudget, encoder: Callable[[], Encoder]
    ) -> Ready:
        """Decode one clip; the first object found opens the encoder."""
        clip, raw = fetched.clip, fetched.raw
        try:
            if raw is None:
                return Ready(clip, waits=absent(self._raw_key(clip)))
            opened = encoder()
            with self.meters.measured("decode") as tally:
                tally.items = 1
                return self._decoded(Source(clip.video_id, raw, clip.metadata), clip, opened)
        finally:
            budget.release(len(raw or b""))

    def _decoded(self, source: Source, clip: Clip, encoder: Encoder) -> Ready:
        try:
            deadline = Deadline.after(self.deadline_seconds)
            return Ready(clip, prepared=encoder.prepare(source, deadline))
        except ContentMissing as missing:
            return Ready(clip, waits=str(missing))
        except (ModelMismatch, DecodersUnavailable):
            raise
        except Exception as error:  # noqa: BLE001 - one bad item is one bad item
            return Ready(clip, error=error)

    def _raw_key(self, clip: Clip) -> str:
        return self.layout.raw(self.modality, clip.video_id)


class Model:
    """An encoder's second step over groups of clips. Thread-safe."""

    def __init__(self, encoder: Encoder, meters: Meters) -> None:
        """Nothing ran yet."""
        self.encoder, self._meters = encoder, meters
        self._warming, self._warm = Lock(), False

    def encode(self, group: Sequence[Ready]) -> list[Embedded]:
        """The model over a group's prepared items; the others pass through in their places."""
        prepared = [ready.prepared for ready in group if ready.is_prepared]
        with self._meters.measured("encode") as tally:
            tally.items = len(prepared)
            results = iter(self._first_alone(prepared))
        return [
            Embedded(one.clip, next(results) if one.is_prepared else one.error, one.waits)
            for one in group
        ]

    def _first_alone(self, prepared: Sequence[Any]) -> list[Encoded | Exception]:
        """The model over a group; nobody else runs it before the first group is through.

        Libraries set themselves up in their first call, and two first calls at once were seen to
        spin for ever.
        """
        if not self._warm:
            with self._warming:
                if not self._warm:
                    results = _results(prepared, self.encoder)
                    self._warm = bool(prepared)
                    return results
        return _results(prepared, self.encoder)


def _results(prepared: Sequence[Any], encoder: Encoder) -> list[Encoded | Exception]:
    """The model over a group; if it raises, one at a time, so that only the culprit fails."""
    if not prepared:
        return []
    try:
        encoded = encoder.encode(prepared)
        return [one for one, _ in zip(encoded, prepared, strict=True)]
    except Exception as error:  # noqa: BLE001 - found out one at a time
        if len(prepared) == 1:
            return [error]
    return [result for one in prepared for result in _results([one], encoder)]
