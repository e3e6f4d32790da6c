"""A decoder that runs an attacker's own code: what the kernel keeps it from, and what is told."""

import ctypes
import logging
import os
import signal
import time
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

import clipfarm_assets
from clipfarm_assets.encoders.base import Deadline
from clipfarm_assets.encoders.sandbox import confinement
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers, DecodingFailed
from clipfarm_assets_tests.encoders import planted_jobs

MIB = 2**20
SECRET = ctypes.create_string_buffer(b"planted secret")
sealed = pytest.mark.skipif(
    confinement.landlock_version() < confinement.LANDLOCK_SEALS,
    reason="the kernel has not the Landlock that is wanted, which runs tell",
)


@pytest.fixture(scope="module")
def workers():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(clipfarm_assets.__file__).parents[1]))
        with closing(DecodeWorkers(256 * MIB, planted_jobs.__name__)) as pool:
            yield pool


def do(pool, raw, task=planted_jobs.TASK):
    return pool.run(task, raw, Deadline.after(60), bytes)[1]


@sealed
@pytest.mark.parametrize("deed", [b"truncate", b"remove", b"rename"])
def test_a_decoder_changes_no_file(workers, tmp_path, deed):
    file = tmp_path / "victim"
    file.write_bytes(b"whole")
    with pytest.raises(DecodingFailed, match=r"^PermissionError: "):
        do(workers, deed + b" " + bytes(file))
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("victim", b"whole")]


@sealed
def test_a_decoder_neither_signals_nor_reads_the_run(workers):
    for deed in (b"signal %d", b"look_into %d %d %d"):
        told = (os.getpid(), ctypes.addressof(SECRET), len(SECRET))
        raw = deed % told[: deed.count(b"%d")]
        with pytest.raises(DecodingFailed, match=r"^PermissionError: "):
            do(workers, raw)
    assert workers.unsealed == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root's processes are not limited")
def test_a_decoder_starts_no_process(workers):
    with pytest.raises(DecodingFailed, match=r"^BlockingIOError: "):
        do(workers, b"fork")


def test_a_kernel_that_seals_nothing_is_told_once_and_counted(caplog):
    caplog.set_level(logging.WARNING)
    task = replace(planted_jobs.TASK, job="on_an_old_kernel")
    with closing(DecodeWorkers(256 * MIB, planted_jobs.__name__)) as pool:
        for _ in range(2):
            with pytest.raises(DecodingFailed):
                do(pool, b"stumble", task)
        assert pool.unsealed == 2
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("decoders are sealed by version 0 of Landlock, and 6 is wanted")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux's own")
def test_a_decoder_that_hangs_for_good_dies_with_what_it_was_forked_from(workers, monkeypatch):
    """Were it not so, this test would end by its time limit."""
    before = do(workers, b"give ")["pid"]
    server = int(Path(f"/proc/{before}/stat").read_text().rpartition(")")[2].split()[1])
    (decoder,) = workers._idle["planted"]
    decoder.order(b"wait_beyond ", planted_jobs.TASK, Deadline.after(60))
    os.kill(server, signal.SIGKILL)
    while _is_alive(before):
        time.sleep(0.01)


def _is_alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
