"""What runs on a cluster's workers: tasks that fetch and decode, actors that encode.

They read raw objects and compute; nothing is written here, so that Ray may repeat any of it. An
item's error is a row; what ends the run is a row too (``fault``), in the item's place.

Ray is imported inside functions: the module is loaded where there is none.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from threading import Lock
from typing import Any, Final

import pyarrow as pa

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.base import Encoder
from clipfarm_assets.encoders.decoding import MediaDecoding, decoded_by
from clipfarm_assets.pipelines.cluster import rows
from clipfarm_assets.pipelines.embed_options import EmbedOptions, open_decoding
from clipfarm_assets.pipelines.embed_steps import Clip, Model, Ready, Steps
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.workers import WorkPlan
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore


@dataclass(frozen=True)
class Recipe:
    """All that a worker needs; travels to it by Ray's own pickling.

    Attributes:
        store: Where raw objects are read.
        layout: Where they lie.
        modality: What is embedded.
        options: How to work.
        plan: Threads of one decoding process.
        open_encoder: Loads the encoder that encodes.
        open_preparer: Loads the encoder that decodes: the same one, on a CPU.
        token: Names this recipe: a process makes once what it needs for it.
        open_decoding: What decodes media, of the options.
    """

    store: ObjectStore
    layout: Layout
    modality: Modality
    options: EmbedOptions
    plan: WorkPlan
    open_encoder: Callable[[], Encoder]
    open_preparer: Callable[[], Encoder]
    token: str
    open_decoding: Callable[[EmbedOptions], MediaDecoding] = open_decoding

    def steps(self, meters: Meters) -> Steps:
        """The steps, by a worker's meters."""
        deadline = self.options.item_deadline_seconds
        return Steps(self.store, self.layout, self.modality, deadline, meters)


class DecodeStation:
    """Fetches and decodes; one a process, with one encoder for all blocks."""

    def __init__(self, recipe: Recipe) -> None:
        """Open nothing yet."""
        self._recipe = recipe
        self._lock = Lock()
        self._preparer: Encoder | None = None
        self._decoding = recipe.open_decoding(recipe.options)
        self._meters = Meters(decoding=lambda: self._decoding.cpu_seconds)
        self._steps = recipe.steps(self._meters)

    def __call__(self, table: pa.Table) -> pa.Table:
        """A block of `rows.CLIPS` to one of `rows.READY`, with prepared input."""
        before = self._meters.uses()
        numbers = table["number"].to_pylist()
        # To its end, as `zip` goes through its first alone: closed before, it gives up decoding.
        all_ready = self._ready(rows.clips_of(table))
        made: list[dict[str, Any]] = []
        prepared: list[Any] = []
        for ready, number in zip(all_ready, numbers, strict=False):
            if isinstance(ready, Exception):
                made.append(rows.outcome(number, fault=ready))
                prepared.append(None)
            else:
                made.append(rows.outcome(number, waits=ready.waits, error=ready.error))
                prepared.append(ready.prepared)
        if made:
            used = rows.difference(self._meters.uses(), before)
            made[0]["uses"] = rows.uses_text(used)
        return _with_objects(pa.Table.from_pylist(made, rows.READY), prepared)

    def _ready(self, clips: list[Clip]) -> Iterator[Ready | Exception]:
        """The clips after decoding; last of all the error that ended it, if one did."""
        prefetch_bytes = self._recipe.options.prefetch_mib * 2**20
        ready = self._steps.ready(
            clips, self._opened, self._recipe.plan, prefetch_bytes, give_up=self._decoding.close
        )
        try:
            with closing(ready):
                yield from ready
        except Exception as error:  # noqa: BLE001 - raised by the run, in the item's place
            yield error

    def _opened(self) -> Encoder:
        with self._lock:
            if self._preparer is None:
                self._preparer = decoded_by(self._recipe.open_preparer(), self._decoding)
            return self._preparer

    def close(self) -> None:
        """End the processes that decode."""
        self._decoding.close()


_STATIONS: Final[dict[str, DecodeStation]] = {}


def decode_block(table: pa.Table, recipe: Recipe) -> pa.Table:
    """A task: see `DecodeStation`. A process that had another recipe before lets go of that."""
    station = _STATIONS.pop(recipe.token, None)
    if station is None:
        while _STATIONS:
            _STATIONS.popitem()[1].close()
        station = DecodeStation(recipe)
    made = station(table)
    if made["fault"].to_pylist()[-1:] in ([], [""]):
        _STATIONS[recipe.token] = station
    else:
        station.close()  # its decoders may have been given up
    return made


class EncodeStation:
    """An actor: runs the model over blocks. The first prepared item opens the encoder."""

    def __init__(self, recipe: Recipe) -> None:
        """Open nothing yet."""
        self._recipe, self._meters = recipe, Meters()
        self._model: Model | None = None

    def __call__(self, table: pa.Table) -> pa.Table:
        """A block, or several, of `rows.READY` to one of `rows.EMBEDDED`; a fault is the last."""
        before = self._meters.uses()
        given = list(rows.up_to_fault(table.to_pylist()))
        made = self._embedded([row for row in given if not row["fault"]])
        if not made or not made[-1]["fault"]:
            made += [{**_NO_VECTOR, **row} for row in given if row["fault"]]
        used = rows.difference(self._meters.uses(), before)
        for row, decoded in zip(made, given, strict=False):
            row["uses"] = decoded["uses"]
        if made:
            made[0]["uses"] = rows.uses_text(
                {**rows.uses_of(made[0]["uses"]), "encode": used["encode"]}
            )
        return pa.Table.from_pylist(made, rows.EMBEDDED)

    def _embedded(self, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows without a fault, after the model; up to the first of these if it can't be opened."""
        clip = Clip("", "", "", {})  # which one it is only the run needs to know
        ready = [rows.ready_of(row, clip) for row in given]
        first = next((n for n, one in enumerate(ready) if one.is_prepared), len(ready))
        made = [{**_NO_VECTOR, **row} for row in given[:first]]
        if first == len(ready):
            return made
        try:
            model = self._opened()
        except Exception as error:  # noqa: BLE001 - raised by the run, in the item's place
            number = given[first]["number"]
            return [*made, {**_NO_VECTOR, **rows.outcome(number, fault=error)}]
        for group in batched(range(first, len(ready)), max(1, model.encoder.group_size)):
            for n, embedded in zip(group, model.encode([ready[n] for n in group]), strict=True):
                version = model.encoder.version.id
                made.append(rows.embedded_row(given[n]["number"], embedded, version))
        return made

    def _opened(self) -> Model:
        if self._model is None:
            self._model = Model(self._recipe.open_encoder(), self._meters)
        return self._model


_NO_VECTOR: Final[dict[str, Any]] = {
    "vector": b"",
    "dtype": "<f4",
    "shape": [0],
    "notes": "{}",
    "version": "",
}


def _with_objects(table: pa.Table, prepared: list[Any]) -> pa.Table:
    """The table and a column of Python objects, which Ray carries as it carries arguments."""
    from ray.data.extensions import ArrowPythonObjectArray

    return table.append_column("prepared", ArrowPythonObjectArray.from_objects(prepared))
