"""A deployment whose encoders are on record, as after a first run."""

from pathlib import Path

from clipfarm_assets.contracts.statuses import MODALITIES
from clipfarm_assets.encoders.config import AudioConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models import PRETRAINED, ResolvedModel, embedding_version
from clipfarm_assets.storage.tables import table_to_parquet
from clipfarm_assets_tests.pipelines.kit import DAY_1, DAY_2, DIMS, Door, HashEncoder

CONFIGS = {"video": VideoConfig(), "audio": AudioConfig(), "text": TextConfig()}
WEIGHTS = "0" * 64


def record_models(world):
    """As the first run does that downloads them."""
    lock = world.deployment.models_lock()
    for modality, (name, revision) in PRETRAINED.items():
        lock.record_model(modality, name, revision, revision=revision, weights_sha256=WEIGHTS)


def as_deployed(world, setenv, delenv):
    """Name the world's store and ledger in an environment."""
    for name in ("DAGSTER_HOME", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "CLIPFARM_ENCODERS"):
        delenv(name, raising=False)
    for modality in MODALITIES:
        delenv(f"CLIPFARM_{modality.upper()}_MODEL", raising=False)
        delenv(f"CLIPFARM_{modality.upper()}_CONFIG", raising=False)
    setenv("CLIPFARM_HOME", str(world.root / "home"))
    setenv("CLIPFARM_STORE", str(world.root / "store"))
    setenv("CLIPFARM_LEDGER", f"sqlite:///{world.root / 'machine'}.sqlite")
    setenv("CLIPFARM_START_DATE", DAY_1)
    setenv("CLIPFARM_END_DATE", DAY_2)
    return world


def pretrained(modality):
    """An encoder of the version that the pretrained model's would be."""
    name, revision = PRETRAINED[modality]
    resolved = ResolvedModel(Path(name), name, revision, WEIGHTS, is_stand_in=False)
    version = embedding_version(
        modality, resolved, f"{modality}-1", CONFIGS[modality], DIMS[modality]
    )
    return Door(HashEncoder(version))


def all_of_it(world, *dates, **options):
    """Everything, from the CSV to the manifest, under one strategy."""
    record_models(world)
    put_indexes(world, *dates)
    for modality in MODALITIES:
        world.embed(modality, *dates, by=pretrained(modality), **options)
    world.lock()
    world.fuse(*dates, shard_rows=4)
    world.merge()


def put_indexes(world, *dates):
    """As the asset `clips/clip_index` does."""
    for date, table in world.index(*dates).items():
        world.store.put(world.layout.clip_index(date), table_to_parquet(table))
