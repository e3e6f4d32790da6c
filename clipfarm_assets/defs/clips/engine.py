"""Where an embedding run computes: the run configuration of its engine."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final, Literal
from uuid import uuid4

import dagster as dg
from pydantic import Field

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.encoders.config import EncoderConfig
from clipfarm_assets.encoders.models_lock import ModelsLock
from clipfarm_assets.orchestration.resources import EncodersResource
from clipfarm_assets.pipelines.cluster.engine import RayEngine
from clipfarm_assets.pipelines.cluster.plan import ClusterOptions
from clipfarm_assets.pipelines.cluster.session import Session, require_ray
from clipfarm_assets.pipelines.embed_local import Engine, LocalEngine, Work
from clipfarm_assets.pipelines.progress import Say

ADDRESS_VARIABLE: Final = "CLIPFARM_RAY_ADDRESS"
_JOB_SERVER: Final = ("http://", "https://")


class EngineOptions(dg.Config):
    """Which machines a run computes on; none of these changes what a vector is."""

    engine: Literal["local", "ray"] = Field(
        default="local",
        description="local: threads of this machine. ray: a Ray cluster, of the same bytes; see "
        "docs/scaling.md for the size from which that pays.",
    )
    ray_address: str | None = Field(
        default=None,
        description="http://host:8265: the run is submitted to that cluster as a Ray job. auto or "
        "host:port: a cluster that this machine is a node of. Unset: CLIPFARM_RAY_ADDRESS, and "
        "without that a cluster of this machine alone.",
    )
    ray_decode_cpus: float | None = Field(
        default=None,
        gt=0,
        le=1024,
        description="Cores of one process that fetches and decodes, and as many clips at a time; "
        "unset, 4, or half of the largest node.",
    )
    ray_encode_cpus: float | None = Field(
        default=None, gt=0, le=1024, description="Cores of one encoder; unset, 1."
    )
    ray_encode_gpus: float = Field(
        default=0.0,
        ge=0,
        le=64,
        description="Accelerators of one encoder; a fraction shares one between encoders.",
    )
    ray_encoders: int | None = Field(
        default=None,
        ge=1,
        le=65_536,
        description="Encoders at most; unset, one for each accelerator asked for, without any two "
        "thirds of the cores.",
    )
    ray_block_clips: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Clips handed to a worker together; unset, 16, of text 256.",
    )
    ray_stalled_seconds: float = Field(
        default=900.0,
        ge=1,
        le=86_400,
        description="So long without any task done, and what is left is started anew on the nodes "
        "that are there; longer than one block may take.",
    )

    @property
    def address(self) -> str:
        """The cluster's; empty for one of this machine alone."""
        return self.ray_address or os.environ.get(ADDRESS_VARIABLE) or ""

    @property
    def is_submitted(self) -> bool:
        """Whether the run is to be a job of the cluster."""
        return self.engine == "ray" and self.address.startswith(_JOB_SERVER)

    def opened(
        self,
        modality: Modality,
        settings: EncoderConfig,
        encoders: EncodersResource,
        models_lock: ModelsLock,
        say: Say,
        held: ExitStack,
    ) -> Callable[[Work], Engine]:
        """Makes the engine of a date; what it is connected to is closed with `held`.

        Raises:
            RayUnavailable: It is Ray, which isn't installed.
        """
        if self.engine == "local":
            return LocalEngine
        require_ray()
        session = held.enter_context(Session(self.address))
        options = ClusterOptions(
            self.address,
            self.ray_decode_cpus,
            self.ray_encode_cpus,
            self.ray_encode_gpus,
            self.ray_encoders,
            self.ray_block_clips,
            self.ray_stalled_seconds,
        )
        # Decoding takes of an encoder neither its device nor its precision.
        plain = settings.model_copy(update={"device": "cpu", "precision": "exact"})
        encoder = encoders.opener(modality, settings, models_lock)
        preparer = encoders.opener(modality, plain, models_lock)
        token = uuid4().hex
        return lambda work: RayEngine(work, session, options, encoder, preparer, say, token)
