"""What all assets of the meme pipeline have in common."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final, TypeVar

import dagster as dg

from clipfarm_assets.defs import options
from clipfarm_assets.defs.options import OWNERS, TRAINING_POOL, say
from clipfarm_assets.orchestration.settings import BadSettings, merged, validated
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.memes.splits import read_taxonomy
from clipfarm_assets.storage.meme_layout import ExpertModality
from clipfarm_assets.training.config import Settings

__all__ = ["OWNERS", "TRAINING_POOL", "say"]

GROUP: Final = "memes"

key: Final = partial(options.asset_key, GROUP)
asset_options: Final = partial(options.asset_options, GROUP)

MANIFEST: Final = key("manifest")
SPLITS: Final = key("splits")
SHARDS: Final = key("shards")
EXPERTS: Final[dict[ExpertModality, dg.AssetKey]] = {
    "text": key("text_expert"),
    "vision": key("vision_expert"),
}
FUSION_MODEL: Final = key("fusion_model")
EVALUATION: Final = key("evaluation")

_Settings = TypeVar("_Settings", bound=Settings)


def settings_of(
    kind: type[_Settings],
    own: Mapping[str, Any],
    told: Mapping[str, Any],
    where: str,
) -> _Settings:
    """All settings of a step.

    Args:
        kind: Of which settings.
        own: Those that are fields of the run's configuration themselves; None is as unset.
        told: Further ones, at whatever depth.
        where: The field that holds the further ones.

    Raises:
        BadSettings: One doesn't exist, hasn't a value that it can have, or is told twice.
    """
    asset = where.partition(".")[0]
    for name in own:
        if name in told:
            msg = f"{where}.{name} is a field of its own: set {asset}.{name}"
            raise BadSettings(msg)
    set_here = {name: value for name, value in own.items() if value is not None}
    values = merged(kind().model_dump(), merged(told, set_here))
    return validated(kind, values, where, hidden=list(own))


def fit_of(max_epochs: int | None, told: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What is told of a fit, with `max_epochs` in it if that is set.

    Raises:
        BadSettings: It is told twice.
    """
    if max_epochs is None:
        return dict(told)
    if "max_epochs" in told.get("fit", {}):
        msg = f"{where}.fit.max_epochs is a field of its own: set max_epochs alone"
        raise BadSettings(msg)
    return merged(told, {"fit": {"max_epochs": max_epochs}})


def check_label(deployment: Deployment, label: str) -> None:
    """Refuse a label that the store's memes have not.

    Raises:
        BadSettings: It is none of the taxonomy that splits were made with.
        NoMemeSplits, BadTaxonomy: See `read_taxonomy`.
    """
    taxonomy = read_taxonomy(deployment.store, deployment.memes)
    if label not in taxonomy.labels:
        there = ", ".join(sorted(taxonomy.labels))
        msg = (
            f"partition {label!r} is no label of the memes in {deployment.store.url}, which have "
            f"{there}: name these in CLIPFARM_MEMES_CONFIG, or add {label!r} to "
            f"{deployment.memes.taxonomy_source()} and materialise memes/splits and memes/shards"
        )
        raise BadSettings(msg)
