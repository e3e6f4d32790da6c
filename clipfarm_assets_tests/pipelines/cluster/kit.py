"""A Ray cluster of two nodes on this machine, and doubles that leave marks of where they worked."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from clipfarm_assets.encoders.base import ModelMismatch
from clipfarm_assets.encoders.decoding import DecodersUnavailable
from clipfarm_assets.pipelines.cluster.engine import RayEngine
from clipfarm_assets.pipelines.cluster.plan import ClusterOptions
from clipfarm_assets.pipelines.cluster.session import Session
from clipfarm_assets_tests.pipelines.kit import HashEncoder, version_of

STORE_BYTES = 100 * 2**20
NODE = {
    "num_cpus": 1,
    "object_store_memory": STORE_BYTES,
    "include_dashboard": False,
    "node_ip_address": "127.0.0.1",
}
QUICK = {"health_check_period_ms": 1000, "health_check_failure_threshold": 3}
"""Dead nodes are found out within seconds."""
ENVIRONMENT = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
"""Without it Ray would make a token in the user's home, and ask all later clusters for it."""
HELD = b"held"  # waits while it is told to
NO_DECODERS = b"no-decoders"  # prepare raises a structural fault


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A head with a core and another node with one; the test is their driver."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "_system_config": QUICK})
    try:
        cluster.add_node(**NODE)
        yield cluster
    finally:
        cluster.shutdown()


@dataclass
class Marking(HashEncoder):
    """Hashes, and leaves a file for all it does: that it began, then that it ended.

    Files are named ``<node>.<step>.<began or done>.<process id>.<any>``. Clips whose raw objects
    begin with `HELD` wait in a step as long as there is a file ``hold.<step>``.
    """

    folder: str = ""

    def prepare(self, source, deadline):
        if source.raw.startswith(NO_DECODERS):
            msg = "there is none"
            raise DecodersUnavailable(msg)
        with self._marked("prepare", [source.raw]):
            return super().prepare(source, deadline)

    def encode(self, prepared):
        with self._marked("encode", [raw for raw, _ in prepared]):
            return super().encode(prepared)

    @contextmanager
    def _marked(self, step, raws):
        import ray

        node = ray.get_runtime_context().get_node_id()
        names = [f"{node}.{step}.{how}.{os.getpid()}.{uuid4().hex}" for how in ("began", "done")]
        began, done = (Path(self.folder, name) for name in names)
        began.touch()
        if any(raw.startswith(HELD) for raw in raws):
            while Path(self.folder, f"hold.{step}").exists():
                time.sleep(0.02)
        yield
        began.rename(done)


@dataclass(frozen=True)
class MarkingDoor:
    """Opens a `Marking`, in whichever process."""

    folder: str
    revision: str = "r1"

    def __call__(self) -> Marking:
        version = version_of("video", self.revision)
        return Marking(version, group_size=2, folder=self.folder)


@dataclass(frozen=True)
class NoModel:
    """Opens none."""

    def __call__(self) -> HashEncoder:
        msg = "these are not the weights"
        raise ModelMismatch(msg)


def engine(
    session: Session, opens: Any, prepares: Any = None, say: Any = None, **options: Any
) -> Any:
    """Makes Ray engines for a stage."""
    chosen = ClusterOptions(
        **{"decode_cpus": 0.25, "encode_cpus": 0.3, "block_clips": 2, "encoders": 2, **options}
    )
    said = say or (lambda _: None)
    return lambda work: RayEngine(work, session, chosen, opens, prepares or opens, said)


class Interrupted:
    """An engine during which something happens, when `when` says so, after the first results."""

    def __init__(self, inner: Any, when: Any, happens: Any) -> None:
        self._inner, self._when, self._happens = inner, when, happens

    @property
    def plan(self):
        return self._inner.plan

    @property
    def note(self):
        return self._inner.note

    def embedded(self, clips):
        for number, one in enumerate(self._inner.embedded(clips)):
            if number == 2:
                until = time.monotonic() + 120
                while not self._when():
                    if time.monotonic() > until:
                        pytest.fail("what was waited for never came")
                    time.sleep(0.02)
                self._happens()
            yield one
