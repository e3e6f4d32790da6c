"""What decides a run beside store and ledger, out of the variables that set it for a deployment."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import ValidationError

from clipfarm_assets.contracts import statuses
from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.encoders.config import AudioConfig, EncoderConfig, TextConfig, VideoConfig
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.environment import first_and_last_date, json_object
from clipfarm_assets.pipelines.fuse import FuseOptions

INDEX_VARIABLE: Final = "CLIPFARM_INDEX_CONFIG"
FUSION_VARIABLE: Final = "CLIPFARM_FUSION_CONFIG"
_ENCODERS: Final[Mapping[Modality, type[EncoderConfig]]] = {
    "video": VideoConfig,
    "audio": AudioConfig,
    "text": TextConfig,
}
# The fields of a run's configuration, beside the encoder's, that decide what is done and not how.
_EMBED_FIELDS: Final = ("max_fail_retries", "retry_terminal", "verify_objects")
_FUSE_FIELDS: Final = (*_EMBED_FIELDS, "shard_rows", "terminal_text_statuses")


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run that is started with an empty run configuration.

    Attributes:
        first_date, last_date: The partitions there are, ISO.
        include_captured_at_in_hash: See `build_index`.
        encoders: Settings of each modality's encoder.
        embedding: How each modality's stage works.
        fusion: How fusion works.
    """

    first_date: str
    last_date: str
    include_captured_at_in_hash: bool = False
    encoders: Mapping[Modality, EncoderConfig] = field(
        default_factory=lambda: {modality: _ENCODERS[modality]() for modality in MODALITIES}
    )
    embedding: Mapping[Modality, EmbedOptions] = field(
        default_factory=lambda: dict.fromkeys(MODALITIES, EmbedOptions())
    )
    fusion: FuseOptions = field(default_factory=FuseOptions)


def run_settings(environ: Mapping[str, str]) -> RunSettings:
    """The settings that ``CLIPFARM_<MODALITY>_CONFIG`` and their like hold.

    Fields that are none of these are Dagster's to refuse, when it loads the definitions.

    Raises:
        ValueError: A variable is no JSON object, or holds a value that can't be; names it.
    """
    first, last = first_and_last_date(environ)
    today = datetime.now(UTC).date()
    encoders: dict[Modality, EncoderConfig] = {}
    embedding: dict[Modality, EmbedOptions] = {}
    for modality, kind in _ENCODERS.items():
        variable = f"CLIPFARM_{modality.upper()}_CONFIG"
        told = _told(environ, variable)
        encoders[modality] = _encoder(variable, kind, told)
        embedding[modality] = EmbedOptions(**_picked(told, _EMBED_FIELDS))
    fusion = _picked(_told(environ, FUSION_VARIABLE), _FUSE_FIELDS)
    if "terminal_text_statuses" in fusion:
        fusion["terminal_text_statuses"] = frozenset(fusion["terminal_text_statuses"])
    return RunSettings(
        first_date=first.isoformat(),
        last_date=min(last or today, today).isoformat(),
        include_captured_at_in_hash=bool(
            _told(environ, INDEX_VARIABLE).get("include_captured_at_in_hash", False)
        ),
        encoders=encoders,
        embedding=embedding,
        fusion=FuseOptions(**fusion),
    )


def stage_of(name: str) -> str:
    """`name` if it is a stage of the clip pipeline.

    Raises:
        ValueError: It is none; names them.
    """
    if name not in STAGES:
        msg = f"there is no stage {name!r}: expected one of {', '.join(STAGES)}"
        raise ValueError(msg)
    return name


STAGES: Final = (
    *(statuses.embedding_stage(modality) for modality in MODALITIES),
    *(statuses.fusion_stage(strategy) for strategy in statuses.STRATEGIES),
)
"""The ledger's names of the clip pipeline's stages, in the order in which they run."""


def _told(environ: Mapping[str, str], variable: str) -> dict[str, Any]:
    return json_object(variable, environ.get(variable) or "{}")


def _picked(told: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: told[name] for name in names if name in told}


def _encoder(variable: str, kind: type[EncoderConfig], told: Mapping[str, Any]) -> EncoderConfig:
    try:
        return kind.model_validate({n: told[n] for n in kind.model_fields if n in told})
    except ValidationError as error:
        first = error.errors()[0]
        why = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        msg = f"{variable}: field {'.'.join(map(str, first['loc']))!r} {why}"
        raise ValueError(msg) from None
