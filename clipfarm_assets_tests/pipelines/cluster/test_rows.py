"""What comes back from a cluster is what a thread would have given."""

import json

import numpy as np
import pyarrow as pa
import pytest

from clipfarm_assets.encoders.base import Encoded, MediaError, ModelMismatch
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.encoders.sandbox.fork_server import ForkFailed
from clipfarm_assets.pipelines.cluster import rows
from clipfarm_assets.pipelines.embed_steps import Clip, Embedded
from clipfarm_assets.pipelines.failure_streak import sentence
from clipfarm_assets.pipelines.meters import Meters, StepUse
from clipfarm_assets.storage.errors import StoreUnavailable
from clipfarm_assets.storage.s3_retries import RequestRefused

CLIP = Clip("one", "hash", "2026-02-05", {"title": "a\nb \U0001f600"})


def travelled(embedded):
    row = rows.embedded_row(7, embedded, "video-1")
    (back,) = pa.Table.from_pylist([row], rows.EMBEDDED).to_pylist()
    return rows.embedded_of(back, embedded.clip)


@pytest.mark.parametrize("values", [[0.1, -0.0, np.nan, np.inf, 1e-45], []])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_vectors_and_notes_come_back_bit_for_bit(values, dtype):
    notes = {"frames": 3, "seconds": 0.1 + 0.2, "cut": True, "why": "\U0001f600"}
    sent = Embedded(CLIP, Encoded(np.array(values, dtype), notes))
    found = travelled(sent)
    assert found.clip is CLIP
    assert (found.result.vector.dtype, found.result.vector.shape) == (dtype, (len(values),))
    assert found.result.vector.tobytes() == sent.result.vector.tobytes()
    assert {k: (type(v), v) for k, v in found.result.notes.items()} == {
        k: (type(v), v) for k, v in notes.items()
    }


@pytest.mark.parametrize(
    "error", [MediaError("bad"), MediaError(""), KeyError("x"), OSError(5, "y")]
)
def test_an_error_keeps_its_sentence_and_whose_fault_it_is(error):
    found = travelled(Embedded(CLIP, error))
    assert sentence(found.result) == sentence(error)
    assert isinstance(found.result, MediaError) == isinstance(error, MediaError)


def test_what_is_waited_for_comes_back():
    assert travelled(Embedded(CLIP, waits="no object")) == Embedded(CLIP, waits="no object")


@pytest.mark.parametrize("kind", [ModelMismatch, DecodersUnavailable, StoreUnavailable])
def test_a_fault_is_raised_as_what_it_is(kind):
    with pytest.raises(kind, match=r"^why$"):
        rows.raise_fault(rows.outcome(1, fault=kind("why")))


@pytest.mark.parametrize(
    ("fault", "kind"), [(RequestRefused, StoreUnavailable), (ForkFailed, DecodersUnavailable)]
)
def test_a_fault_of_a_narrower_kind_is_raised_as_the_wider_one(fault, kind):
    """Which Dagster shows as a sentence, and doesn't try again."""
    with pytest.raises(kind, match=r"^why$"):
        rows.raise_fault(rows.outcome(1, fault=fault("why")))


def test_any_other_fault_names_itself():
    with pytest.raises(rows.ClusterFault, match="ZeroDivisionError: by zero"):
        rows.raise_fault(rows.outcome(1, fault=ZeroDivisionError("by zero")))
    rows.raise_fault(rows.outcome(1, error=KeyError("an item's own")))


def test_clips_are_numbered_and_lose_what_only_the_run_knows():
    table = rows.clips_table([CLIP, CLIP], 5)
    assert table["number"].to_pylist() == [5, 6]
    assert rows.clips_of(table)[0] == Clip("one", "", "", CLIP.metadata)
    assert json.loads(table["metadata"][0].as_py()) == CLIP.metadata


def test_uses_add_up_to_those_of_one_machine():
    there, here = Meters(), Meters()
    before = there.uses()
    with there.measured("fetch") as tally:
        tally.items, tally.bytes, tally.requests = 2, 100, 2
    used = rows.difference(there.uses(), before)
    here.add(rows.uses_of(rows.uses_text(used)))
    here.add(rows.uses_of(""))
    assert here.uses()["fetch"] == used["fetch"]
    assert here.uses()["decode"] == StepUse()
