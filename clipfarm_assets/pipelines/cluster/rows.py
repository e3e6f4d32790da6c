"""What travels between a run and its cluster's workers: Arrow tables of keys and small facts.

Vectors are values of theirs; only prepared input, which the run itself never sees, is a Python
object. Errors travel as sentences, since their types may not be known where they arrive.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from typing import Any, Final

import numpy as np
import pyarrow as pa

from clipfarm_assets.encoders.base import Encoded, MediaError, ModelMismatch
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.models import ModelUnavailable
from clipfarm_assets.pipelines.embed_steps import Clip, Embedded, Ready
from clipfarm_assets.pipelines.failure_streak import FailedElsewhere, sentence
from clipfarm_assets.pipelines.meters import STEPS, Step, StepUse
from clipfarm_assets.storage.errors import StoreUnavailable

CLIPS: Final = pa.schema(
    [
        pa.field("number", pa.int64(), nullable=False),
        pa.field("video_id", pa.string(), nullable=False),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
_OUTCOME: Final = [
    pa.field("number", pa.int64(), nullable=False),
    pa.field("waits", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("is_media_error", pa.bool_(), nullable=False),
    pa.field("fault", pa.string(), nullable=False),
    pa.field("uses", pa.string(), nullable=False),
]
READY: Final = pa.schema(_OUTCOME)
"""And a column ``prepared`` of Python objects, see `stations`."""
EMBEDDED: Final = pa.schema(
    [
        *_OUTCOME,
        pa.field("vector", pa.large_binary(), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("shape", pa.list_(pa.int64()), nullable=False),
        pa.field("notes", pa.string(), nullable=False),
        pa.field("version", pa.string(), nullable=False),
    ]
)

_FAULTS: Final[Mapping[str, type[Exception]]] = {
    kind.__name__: kind
    for kind in (DecodersUnavailable, ModelMismatch, ModelUnavailable, StoreUnavailable)
}


def _kind(fault: Exception) -> str:
    """The type that a fault can be raised as at the other end; its own where there is none."""
    kinds = [each.__name__ for each in type(fault).__mro__]
    return next((name for name in kinds if name in _FAULTS), kinds[0])


class ClusterFault(RuntimeError):  # noqa: N818 - ends a run as the error that it stands for
    """What ended a worker's task and is no item's fault; its sentence, its type being lost."""


def clips_table(clips: Sequence[Clip], first: int) -> pa.Table:
    """Clips, numbered from `first`."""
    return pa.Table.from_pylist(
        [
            {
                "number": number,
                "video_id": clip.video_id,
                "metadata": json.dumps(dict(clip.metadata)),
            }
            for number, clip in enumerate(clips, first)
        ],
        CLIPS,
    )


def clips_of(table: pa.Table) -> list[Clip]:
    """The clips of a table, as far as the steps need them."""
    return [Clip(row["video_id"], "", "", json.loads(row["metadata"])) for row in table.to_pylist()]


def outcome(
    number: int, *, waits: str = "", error: Exception | None = None, fault: Exception | None = None
) -> dict[str, Any]:
    """The fields that every row has."""
    return {
        "number": number,
        "waits": waits,
        "error": None if error is None else sentence(error),
        "is_media_error": isinstance(error, MediaError),
        "fault": "" if fault is None else json.dumps([_kind(fault), str(fault)]),
        "uses": "",
    }


def ready_of(row: Mapping[str, Any], clip: Clip) -> Ready:
    """A row after decoding."""
    return Ready(clip, row["prepared"], row["waits"], _error(row))


def embedded_row(number: int, embedded: Embedded, version: str) -> dict[str, Any]:
    """A row after the model."""
    result = embedded.result
    given = result if isinstance(result, Encoded) else None
    error = result if isinstance(result, Exception) else None
    vector = np.empty(0, np.float32) if given is None else np.asarray(given.vector)
    return {
        **outcome(number, waits=embedded.waits, error=error),
        "vector": vector.tobytes(),
        "dtype": vector.dtype.str,
        "shape": list(vector.shape),
        "notes": json.dumps({} if given is None else dict(given.notes)),
        "version": version,
    }


def embedded_of(row: Mapping[str, Any], clip: Clip) -> Embedded:
    """The inverse of `embedded_row`."""
    if row["waits"] or row["error"] is not None:
        return Embedded(clip, _error(row), row["waits"])
    vector = np.frombuffer(row["vector"], row["dtype"]).reshape(row["shape"])
    return Embedded(clip, Encoded(vector, json.loads(row["notes"])))


def raise_fault(row: Mapping[str, Any]) -> None:
    """Raise the fault that a row stands for, if it does."""
    if row["fault"]:
        kind, message = json.loads(row["fault"])
        if kind in _FAULTS:
            raise _FAULTS[kind](message)
        msg = f"a worker of the cluster failed: {kind}: {message}"
        raise ClusterFault(msg)


def uses_text(uses: Mapping[Step, StepUse]) -> str:
    """What steps used, for a row."""
    return json.dumps({step: astuple(use) for step, use in uses.items() if use.items})


def uses_of(text: str) -> dict[Step, StepUse]:
    """The inverse of `uses_text`; of an empty text nothing."""
    found = json.loads(text) if text else {}
    return {step: StepUse(*found[step]) for step in STEPS if step in found}


def difference(
    after: Mapping[Step, StepUse], before: Mapping[Step, StepUse]
) -> dict[Step, StepUse]:
    """What was used between two readings of the same meters."""
    return {
        step: StepUse(
            *(a - b for a, b in zip(astuple(after[step]), astuple(before[step]), strict=True))
        )
        for step in STEPS
    }


def up_to_fault(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows until the first fault, and that one."""
    for row in rows:
        yield row
        if row["fault"]:
            return


def _error(row: Mapping[str, Any]) -> Exception | None:
    if row["error"] is None:
        return None
    return (MediaError if row["is_media_error"] else FailedElsewhere)(row["error"])
