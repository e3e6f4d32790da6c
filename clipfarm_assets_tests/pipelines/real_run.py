"""One embedding stage with the demo's encoders: ``python -m … <folder> <modality> <kill>``.

Kill is that of `workers`, as JSON. In this process too: `embed`.
"""

import json
import sys
from pathlib import Path

from clipfarm_assets.demo.edge_cases import DATES
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.open import open_encoder
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed import EmbeddingStage, EmbedOptions
from clipfarm_assets.pipelines.index import build_index
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.pipelines.workers import Kill, install

CONFIGS = {"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}


def embed(root: Path, modality: str, batch_size: int) -> dict[str, bytes]:
    """Embed the sample's first date; the vectors by key."""
    store = ObjectStore.open(str(root / "store"))
    with Ledger.open(f"sqlite:///{root / 'ledger.sqlite'}", store.url) as ledger:
        deployment = Deployment(store, Layout(), ledger)
        stage = EmbeddingStage(
            deployment,
            modality,
            lambda: open_encoder(
                modality,
                CONFIGS[modality],
                profile="demo",
                cache_dir=root.parent / "models",
                models_lock=deployment.models_lock(),
            ),
            EmbedOptions(batch_size=batch_size),
        )
        stage.run(build_index(deployment, DATES[:1]).by_date)
        prefix = deployment.layout.embeddings_prefix(modality)
        return {info.key: store.get(info.key) for info in store.list(prefix)}


if __name__ == "__main__":
    install(Kill(**json.loads(sys.argv[3])))
    embed(Path(sys.argv[1]), sys.argv[2], batch_size=3)
