"""What a start of Ray costs, and a clip on it, against threads. ``python -m benchmarks.engines``.

One video stage over clips whose encoder costs nothing, so that all there is to see is the engine's
own: processor seconds of the run and all processes that it starts. Needs the extra ``ray``. Both
engines must give the same vectors.
"""

import ctypes
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.common import alternate, answer, begin, child, markdown, medians, options, same

_SUBREAPER = 36
_ENDING_SECONDS = 30.0


def main() -> None:
    """Compare, and print a table."""
    if sys.argv[1:2] == ["--child"]:
        answer(_counted(sys.argv[2], int(sys.argv[3])))
        return
    if sys.argv[1:2] == ["--run"]:
        print(_run(sys.argv[2], int(sys.argv[3])))
        return
    parser = options(__doc__)
    parser.add_argument("--clips", type=int, nargs="+", default=[20, 3000])
    asked = begin(parser)
    table = []
    for clips in asked.clips:
        runs = alternate({way: _way(way, clips) for way in ("local", "ray")}, asked.repeats)
        same(runs)
        for way, found in runs.items():
            cpu, seconds = medians(found, "cpu_seconds", "seconds")
            table.append([f"{clips:,}", way, f"{cpu:.1f}", f"{seconds:.1f}"])
    print(markdown(("clips", "engine", "CPU s of all processes", "s"), table))


def _way(way: str, clips: int) -> Callable[[], dict[str, Any]]:
    def run() -> dict[str, Any]:
        found = child("benchmarks.engines", ["--child", way, clips])
        assert found is not None
        return found

    return run


def _counted(way: str, clips: int) -> dict[str, Any]:
    """A run in a process of its own, and what all of its descendants used.

    Those that outlive their parents become this process's children, on Linux, and are waited for.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    began = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.engines", "--run", way, str(clips)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    seconds, until = time.perf_counter() - began, time.monotonic() + _ENDING_SECONDS
    with suppress(ChildProcessError):
        while time.monotonic() < until:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.05)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "digest": done.stdout.split()[-1],
        "seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
    }


def _run(way: str, clips: int) -> str:
    """The stage; a hash of all vectors."""
    import pyarrow as pa

    from benchmarks.scaling import LAYOUT, Hashing
    from clipfarm_assets.contracts.clip_tables import CLIP_INDEX
    from clipfarm_assets.encoders.base import EmbeddingVersion
    from clipfarm_assets.ledger.ledger import Ledger
    from clipfarm_assets.pipelines.cluster.engine import RayEngine
    from clipfarm_assets.pipelines.cluster.plan import ClusterOptions
    from clipfarm_assets.pipelines.cluster.session import Session
    from clipfarm_assets.pipelines.deployment import Deployment
    from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
    from clipfarm_assets.storage.objects import ObjectStore

    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # where Ray's workers look
    encoder = Hashing(EmbeddingVersion("video", "hash", "r1", "0" * 64, "hash-1", {}, 768))
    with tempfile.TemporaryDirectory(prefix="clipfarm-benchmark-") as folder, Session() as session:
        store = ObjectStore.open(f"{folder}/store")
        ids = [f"{number:011d}" for number in range(clips)]
        for video_id in ids:
            store.put(LAYOUT.raw("video", video_id), video_id.encode())
        texts = dict.fromkeys(CLIP_INDEX.names[:-1], "") | {"csv_row": 0}
        rows = [{**texts, "video_id": i, "source_hash": i, "captured_at": i} for i in ids]
        index = pa.Table.from_pylist(rows, CLIP_INDEX)
        with Ledger.open(f"sqlite:///{folder}/ledger.sqlite", store.url) as ledger:
            stage = EmbeddingStage(
                Deployment(store, LAYOUT, ledger), "video", lambda: encoder, EmbedOptions(256)
            )
            if way == "ray":
                stage.engine = lambda work: RayEngine(
                    work, session, ClusterOptions(block_clips=64), lambda: encoder, lambda: encoder
                )
            stage.run({"2026-02-05": index})
        digest = hashlib.sha256()
        for info in store.list(LAYOUT.embeddings_prefix("video")):
            digest.update(info.key.encode() + store.get(info.key))
        return digest.hexdigest()


if __name__ == "__main__":
    main()
