"""What a user has: a store with a few real clips, an environment, and commands to type.

The clips are ordinary ones of the sample, so that the media are real and the encoders the demo's.
"""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.demo.edge_cases import DATES, EDGE_CASES
from clipfarm_assets.demo.horizon_csv import rows_of, to_csv
from clipfarm_assets.demo.plan import plan_sample
from clipfarm_assets.demo.sample_store import raw_objects, text_states
from clipfarm_assets.demo.text_state import text_state_sqlite
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore

REPOSITORY = Path(__file__).parents[2]
DAYS = DATES[:2]
CLIPS_A_DAY = 3
# What only a store with more clips than these can make.
TRAINED = {
    f"clips/{name}"
    for name in ("training_dataset", "model_snapshots", "model_registry", "clip_predictions")
}


def small_sample():
    """Ordinary clips of the first two days, three each: no edge cases."""
    hard = {case.video_id for case in EDGE_CASES}
    easy = [clip for clip in plan_sample().clips if clip.video_id not in hard]
    return [c for day in DAYS for c in [c for c in easy if c.date == day][:CLIPS_A_DAY]]


def fill(store: ObjectStore, clips) -> None:
    """Write the clips' raw objects, the text downloader's state, and the CSV last."""
    layout = Layout()
    for clip in clips:
        for _, key, data in raw_objects(clip, layout):
            store.put(key, data)
    store.put(layout.text_downloader_state(), text_state_sqlite(list(text_states(clips, layout))))
    store.put(layout.metadata(), to_csv([row for clip in clips for row in rows_of(clip)]))


@dataclass(frozen=True)
class Site:
    """A deployment below one folder, and the environment that names it."""

    root: Path
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of its commands: nothing of the tests' own leaks in."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CLIPFARM_", "DAGSTER_"))}
        return {
            **kept,
            "DAGSTER_HOME": str(self.root / "dagster"),
            "CLIPFARM_STORE": str(self.root / "store"),
            # How long the webserver waits for a run to be launched: a busy machine is no failure.
            "DAGSTER_GRPC_TIMEOUT_SECONDS": "300",
            "CLIPFARM_ENCODERS": "demo",
            "HF_HUB_OFFLINE": "1",
            "NO_COLOR": "1",
            **self.variables,
        }

    @property
    def store(self) -> ObjectStore:
        return ObjectStore.open(str(self.root / "store"))

    def open(self) -> Deployment:
        """The deployment as the commands left it."""
        url = f"sqlite:///{self.root / 'dagster' / 'clipfarm' / 'ledger.sqlite'}"
        return Deployment(self.store, Layout(), Ledger.open(url, self.store.url))

    def embeddings(self) -> dict[str, bytes]:
        """Every stored vector."""
        keys = [
            info.key for m in MODALITIES for info in self.store.list(Layout().embeddings_prefix(m))
        ]
        return {key: self.store.get(key) for key in keys}

    def prepare(self) -> None:
        """Make the folder of the Dagster instance, with the project's own settings."""
        home = self.root / "dagster"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_bytes((REPOSITORY / "deploy" / "dagster.yaml").read_bytes())

    def call(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess[str]:
        """Run ``python -m <command>`` from the checkout; output and errors together."""
        return subprocess.run(
            [sys.executable, "-m", *command],
            cwd=REPOSITORY,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )


def stop(process: subprocess.Popen[bytes], *, patience: float = 20) -> None:
    """End a process and its whole session, whatever it takes."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(patience)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # children it left behind
