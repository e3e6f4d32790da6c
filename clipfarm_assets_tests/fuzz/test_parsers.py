"""Any bytes are the value or the documented error: mutations of valid files, and noise."""

import tracemalloc
from contextlib import contextmanager

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets_tests.fuzz.targets import SCHEMA, TARGETS

_MOST_MEMORY = 64 << 20
_UNSEEN = {"csv"}
"""Read by polars, whose memory neither Python nor Arrow counts."""
_POOLS = []
"""Kept for good: what was taken from one is given back to it, whenever that is."""


@pytest.fixture(scope="module", autouse=True)
def traced():
    """Once for all: where tracing ended beside threads of libraries, Python 3.11 crashed."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@contextmanager
def arrow_pool():
    """Where Arrow takes its memory from meanwhile, which keeps its peak."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    _POOLS.append(pool)
    pa.set_memory_pool(pool)
    try:
        yield pool
    finally:
        pa.set_memory_pool(before)


@st.composite
def mutated(draw, target):
    """A valid file with up to six edits, each of a few bytes."""
    data = draw(st.sampled_from(target.valid))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.sampled_from([0, 1, 1, 2, 4, 8, 64])))
        kind = draw(st.sampled_from(["flip", "token", "noise", "repeat", "cut"]))
        if kind == "flip":
            new = bytes(byte ^ draw(st.integers(1, 255)) for byte in data[at : at + 1])
            end = at + len(new)
        elif kind == "token":
            new = draw(st.sampled_from(target.tokens))
        elif kind == "noise":
            new = draw(st.binary(max_size=8))
        elif kind == "repeat":
            new = data[at:end] * draw(st.integers(2, 5))
        else:
            new, end = b"", max(end, draw(st.sampled_from([end, len(data)])))
        data = data[:at] + new + data[end:]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_of_the_valid_files_is_read(name):
    """Else all that is made of it would be noise."""
    TARGETS[name].parse(TARGETS[name].valid[0])


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_bytes_are_the_value_or_the_documented_error(name, data):
    target = TARGETS[name]
    raw = data.draw(st.one_of(mutated(target), mutated(target), st.binary(max_size=200)))
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    with arrow_pool() as pool:
        target.check(raw)
    if name not in _UNSEEN:
        assert tracemalloc.get_traced_memory()[1] - before < _MOST_MEMORY
        assert pool.max_memory() < _MOST_MEMORY


def test_memory_that_arrow_takes_is_seen():
    """Else the bound above would hold of anything: Python's tracing sees none of it."""
    table = pa.table({"video_id": ["a" * _MOST_MEMORY], "dim": [1], "ok": [True]}, SCHEMA)
    raw = table_to_parquet(table)
    with arrow_pool() as pool:
        assert parquet_to_table(raw, SCHEMA).num_rows == 1
    assert pool.max_memory() >= _MOST_MEMORY
