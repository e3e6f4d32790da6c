"""The resources that assets ask for: a deployment, and encoders for it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import dagster as dg
from dagster_aws.s3 import S3Resource
from pydantic import Field

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.ledger.ledger import Ledger
from clipfarm_assets.ledger.read_only import ReadOnlyLedger
from clipfarm_assets.orchestration.faults import one_sentence
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.inspect.foreseen import ForeseenLedger, ForeseenStore
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore, S3Settings
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.song_config import SongConfig, song_config

if TYPE_CHECKING:
    from clipfarm_assets.encoders.base import EmbeddingVersion, Encoder


_MEMES: Final = MemeLayout()
_SONGS: Final = SongLayout()
_S3: Final = S3Settings()
_SETTINGS: Final = (VideoConfig, AudioConfig, TextConfig)


class DeploymentResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Where the data is and where its state is kept."""

    store: str = Field(description="Folder, or s3://bucket[/prefix].")
    ledger: str = Field(description="SQLAlchemy URL of the ledger: sqlite:///… or postgresql://….")
    prefix: str = Field(default="clipfarm", description="First part of every key.")
    metadata_key: str = Field(
        default="metadata/shorts_metadata_horizon.csv",
        description="Key of the metadata CSV, relative to the prefix.",
    )
    memes_prefix: str = Field(
        default=_MEMES.prefix, description="First part of every key of the meme pipeline."
    )
    memes_manifest_key: str = Field(
        default=_MEMES.manifest_key,
        description="Key of the memes' JSON lines, relative to their prefix.",
    )
    memes_ocr_key: str = Field(
        default=_MEMES.ocr_key, description="Key of their OCR, likewise; need not exist."
    )
    memes_images_prefix: str = Field(
        default=_MEMES.images_prefix, description="Folder of their images, likewise."
    )
    memes_taxonomy_key: str = Field(
        default=_MEMES.taxonomy_key, description="Key of their labels, likewise; need not exist."
    )
    songs_prefix: str = Field(
        default=_SONGS.prefix, description="First part of every key of the song pipeline."
    )
    songs_metadata_key: str = Field(
        default=_SONGS.metadata_key,
        description="Key of the segments' metadata, relative to their prefix.",
    )
    songs_media_key: str = Field(
        default=_SONGS.media_key, description="Key of the segments with their media, likewise."
    )
    songs_files_prefix: str = Field(
        default=_SONGS.files_prefix, description="Folder of files that segments name, likewise."
    )
    songs_config: str = Field(
        default="",
        description="Settings of the song pipeline that differ from their defaults, as YAML or "
        "JSON.",
    )
    s3_timeout_seconds: float = Field(
        default=_S3.timeout_seconds,
        description="What one request to S3 may take, with all that it carries.",
    )
    s3_retry_seconds: float = Field(
        default=_S3.retry_seconds,
        description="How long after its beginning a request to S3 may be repeated.",
    )
    s3: dg.ResourceDependency[S3Resource]

    @property
    def layout(self) -> Layout:
        """The keys of this deployment."""
        return Layout(prefix=self.prefix, metadata_key=self.metadata_key)

    @property
    def memes(self) -> MemeLayout:
        """The keys of its memes."""
        return MemeLayout(
            prefix=self.memes_prefix,
            manifest_key=self.memes_manifest_key,
            ocr_key=self.memes_ocr_key,
            images_prefix=self.memes_images_prefix,
            taxonomy_key=self.memes_taxonomy_key,
        )

    @property
    def songs(self) -> SongLayout:
        """The keys of its songs."""
        return SongLayout(
            prefix=self.songs_prefix,
            metadata_key=self.songs_metadata_key,
            media_key=self.songs_media_key,
            files_prefix=self.songs_files_prefix,
        )

    @property
    def song_config(self) -> SongConfig:
        """How its songs are prepared and learned."""
        return song_config(self.songs_config, "songs_config")

    def open_store(self) -> ObjectStore:
        """The object store."""
        settings = s3_settings(self.s3, self.s3_timeout_seconds, self.s3_retry_seconds)
        return ObjectStore.open(self.store, settings)

    @contextmanager
    def open(self) -> Iterator[Deployment]:
        """The deployment, for the time of one step.

        Raises:
            Failure: A structural fault, in a sentence; among them an S3 server that ignores
                conditional writes, and would lose data.
        """
        store = self.open_store()
        with one_sentence():
            if self.store.startswith("s3://"):
                _prove(store, f"{self.layout.prefix}/state")
            with Ledger.open(self._ledger_url(), store.url) as ledger:
                yield Deployment(
                    store, self.layout, ledger, self.memes, self.songs, self.song_config
                )

    @contextmanager
    def reading(self, seconds: float) -> Iterator[tuple[Deployment, ReadOnlyLedger]]:
        """The deployment and its ledger, to be looked at: nothing is written, nor made.

        Args:
            seconds: How long a request to S3 may take, and as long may it be repeated. Whoever
                looks every minute does better to give up and look again.
        """
        s3 = s3_settings(
            self.s3, min(seconds, self.s3_timeout_seconds), min(seconds, self.s3_retry_seconds)
        )
        store = ForeseenStore(self.store, s3)
        with ForeseenLedger.open(self._ledger_url(), store.url) as ledger:
            yield Deployment(store, self.layout, ledger), ledger

    def _ledger_url(self) -> str:
        # Dagster resolves a variable for its steps; whoever opens it elsewhere gets its name.
        url = self.ledger.get_value() if isinstance(self.ledger, dg.EnvVar) else self.ledger
        return url or ""


_PROVED: set[str] = set()


def _prove(store: ObjectStore, folder: str) -> None:
    """Once a process: that the server refuses a write whose condition doesn't hold."""
    if store.url not in _PROVED:
        store.check_conditional_writes(folder)
        _PROVED.add(store.url)


def s3_settings(
    s3: S3Resource,
    timeout_seconds: float = _S3.timeout_seconds,
    retry_seconds: float = _S3.retry_seconds,
) -> S3Settings:
    """Our S3 settings from dagster-aws's, so that a deployment configures S3 once for both.

    Raises:
        ValueError: A setting contradicts another.
    """
    return S3Settings(
        endpoint_url=s3.endpoint_url,
        region_name=s3.region_name,
        access_key_id=s3.aws_access_key_id,
        secret_access_key=s3.aws_secret_access_key,
        session_token=s3.aws_session_token,
        profile_name=s3.profile_name,
        retries=s3.max_attempts,
        unsigned=s3.use_unsigned_session,
        verify=s3.verify is not False,
        timeout_seconds=timeout_seconds,
        retry_seconds=retry_seconds,
    )


class EncodersResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """Opens encoders by modality and configuration."""

    profile: Literal["pretrained", "demo"] = Field(
        default="pretrained",
        description="pretrained: the models of the contract. demo: small seeded stand-ins.",
    )
    cache_dir: str = Field(description="Where stand-in models are kept.")

    def known_version(
        self, modality: Modality, config: EncoderConfig, models_lock: ModelsLock
    ) -> "EmbeddingVersion | None":
        """The version `open` would give, if it is on record; loads no model."""
        from clipfarm_assets.encoders.open import known_version

        return known_version(
            modality,
            config,
            profile=self.profile,
            cache_dir=Path(self.cache_dir),
            models_lock=models_lock,
        )

    def opener(
        self, modality: Modality, config: EncoderConfig, models_lock: ModelsLock
    ) -> "Callable[[], Encoder]":
        """What `open` does, to be called in another process: it can be pickled."""
        from clipfarm_assets.encoders.open import open_encoder

        # A run's own class of configuration may be known to this process alone.
        kind = next(one for one in _SETTINGS if isinstance(config, one))
        plain = kind(**{name: getattr(config, name) for name in kind.model_fields})
        return partial(
            open_encoder,
            modality,
            plain,
            profile=self.profile,
            cache_dir=Path(self.cache_dir),
            models_lock=models_lock,
        )

    def open(self, modality: Modality, config: EncoderConfig, models_lock: ModelsLock) -> "Encoder":
        """Load the modality's encoder; its model is recorded in, and held to, the models lock."""
        from clipfarm_assets.encoders.open import open_encoder

        return open_encoder(
            modality,
            config,
            profile=self.profile,
            cache_dir=Path(self.cache_dir),
            models_lock=models_lock,
        )
