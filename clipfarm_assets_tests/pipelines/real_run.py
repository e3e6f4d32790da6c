"""One embedding stage with the demo's encoders: ``python -m … <folder> <modality> <kill>``.

Kill is that of `workers`, as JSON. In this process too: `embed`.
"""

import faulthandler
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from clipfarm_assets.demo.edge_cases import DATES
from clipfarm_assets.encoders.base import Deadline, Source
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.npy import vector_to_npy
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.workers import Kill, install

TOO_LONG_SECONDS = 200
"""A run takes a few; of one that doesn't end, where each thread is says more than waiting."""
CONFIGS = {"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}


def embed(root: Path, modality: str, **options) -> dict[str, bytes]:
    """Embed the sample's first date; the vectors by key."""
    store = ObjectStore.open(str(root / "store"))
    with Ledger.open(f"sqlite:///{root / 'ledger.sqlite'}", store.url) as ledger:
        deployment = Deployment(store, Layout(), ledger)
        stage = EmbeddingStage(
            deployment,
            modality,
            lambda: _encoder(root, deployment, modality),
            EmbedOptions(**options),
        )
        stage.run(build_index(deployment, DATES[:1]).by_date)
        prefix = deployment.layout.embeddings_prefix(modality)
        return {info.key: store.get(info.key) for info in store.list(prefix)}


def one_by_one(root: Path, modality: str, keys: Iterable[str]) -> dict[str, bytes]:
    """The vectors of these keys, each clip given to the encoder by itself; nothing is stored."""
    store = ObjectStore.open(str(root / "store"))
    with Ledger.open(f"sqlite:///{root / 'ledger.sqlite'}", store.url) as ledger:
        deployment = Deployment(store, Layout(), ledger)
        encoder = _encoder(root, deployment, modality)
        rows = build_index(deployment, DATES[:1]).by_date[DATES[0]].to_pylist()
        found = {}
        for row in rows:
            key = deployment.layout.embedding(modality, row["video_id"])
            if key in keys:
                raw = store.get(deployment.layout.raw(modality, row["video_id"]))
                source = Source(row["video_id"], raw, row)
                (encoded,) = encoder.encode([encoder.prepare(source, Deadline.after(60))])
                found[key] = vector_to_npy(encoded.vector)
        return found


def _encoder(root: Path, deployment: Deployment, modality: str):
    return open_encoder(
        modality,
        CONFIGS[modality],
        profile="demo",
        cache_dir=root.parent / "models",
        models_lock=deployment.models_lock(),
    )


if __name__ == "__main__":
    faulthandler.dump_traceback_later(TOO_LONG_SECONDS, exit=True)
    install(Kill(**json.loads(sys.argv[3])))
    embed(Path(sys.argv[1]), sys.argv[2], batch_size=3)
