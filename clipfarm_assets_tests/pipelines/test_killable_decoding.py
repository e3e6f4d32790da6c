"""A run over media that hang, crash and blow up: each is one failed item; nothing stays behind."""

import os
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import clipfarm_assets
from clipfarm_assets.encoders.decoding import DecodersUnavailable, InThread, MediaDecoding
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.embed_options import open_decoding
from clipfarm_assets_tests.encoders import planted_jobs
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, Clip, HashEncoder, version_of

REPOSITORY = Path(clipfarm_assets.__file__).parents[1]
PLANTED = planted_jobs.__name__
STAGE = "video_embedding"
FOR_EVER = 10_000.0


@pytest.fixture(autouse=True)
def _jobs_are_found(monkeypatch):
    """Decoders look for modules where this process does."""
    monkeypatch.syspath_prepend(str(REPOSITORY))


@dataclass
class DecodingEncoder(HashEncoder):
    """Hashes what a decoder gives it of the raw object."""

    decoding: MediaDecoding | None = None

    def decoding_by(self, decoding):
        return replace(self, decoding=decoding)

    def prepare(self, source, deadline):
        given, _ = self.decoding.run(planted_jobs.TASK, source.raw, deadline, bytes)
        return b"".join(given), source.metadata["title"]


def run(world, *dates, jobs=PLANTED, **options):
    stage = EmbeddingStage(
        world.deployment,
        "video",
        lambda: DecodingEncoder(version_of("video")),
        EmbedOptions(decode_memory_mib=256, **options),
        world.said.append,
        open_decoding=lambda chosen: DecodeWorkers(chosen.decode_memory_mib * 2**20, jobs),
    )
    return stage.run(world.index(*dates))


def planted(*raws, date=DAY_1):
    return [Clip(f"{date[-2:]}-{i:03d}", date, video=raw + b" ") for i, raw in enumerate(raws)]


def children(*parents):
    """The processes that these started or forked."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it may be gone by now
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            found += [folder] * (int(stat[1]) in parents)
    return found


def servers_of_decoders():
    """What this process's decoders are forked from."""
    name = b"clipfarm_assets.encoders.sandbox.server"
    found = [one for one in children(os.getpid()) if name in (one / "cmdline").read_bytes()]
    return [int(one.name) for one in found]


def test_bad_media_are_charged_alone_and_the_others_are_embedded(world):
    bad = {b"crash": "crashed", b"sleep": "gave up decoding", b"exit": "exit code 3"}
    raws = [b"give", b"crash", b"give", b"sleep", b"give", b"grow", b"give", b"exit", b"give"]
    bad[b"grow"] = "more memory than decode_memory_mib allows, 256 MiB"
    world.fill([*planted(*raws), *planted(b"give", b"crash", date=DAY_2)])
    reports = run(world, DAY_1, DAY_2, workers=3, item_deadline_seconds=1.0)
    assert reports[DAY_1].statuses == Counter(success=5, fail=4)
    assert reports[DAY_2].statuses == Counter(success=1, fail=1)
    states = world.states(STAGE)
    for index, raw in enumerate(raws):
        item = states[f"{DAY_1[-2:]}-{index:03d}"]
        assert item.status == ("success" if raw == b"give" else "fail")
        assert item.retry_count == (0 if raw == b"give" else 1)
        assert bad.get(raw, "") in (item.error or "")
    assert reports[DAY_1].roofline.steps[1].stage == "decode"
    assert servers_of_decoders() == []


def test_no_decoder_at_all_stops_the_run_and_charges_nobody(world):
    world.fill(planted(b"give", b"give"))
    with pytest.raises(DecodersUnavailable, match="No module named 'no_such_module'"):
        run(world, jobs="no_such_module")
    assert world.states(STAGE) == {}


@pytest.fixture
def _interrupts():
    """Also where the tests are started in the background, by a shell that ignores them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_interrupts")
def test_an_interrupt_waits_for_no_medium_that_hangs(world):
    """Were it waited for, this test would end by its time limit."""
    world.fill(planted(b"sleep", b"sleep"))

    def interrupt():
        while not (servers := servers_of_decoders()) or len(children(*servers)) < 2:
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        run(world, workers=2, item_deadline_seconds=FOR_EVER)
    watcher.join()
    assert world.states(STAGE) == {}, "it is nobody's fault"
    assert servers_of_decoders() == []
    assert not [t for t in threading.enumerate() if t.name.startswith("clipfarm")]


def test_the_option_decides():
    assert isinstance(open_decoding(EmbedOptions(decode_isolation="thread")), InThread)
    assert isinstance(open_decoding(EmbedOptions()), DecodeWorkers)
