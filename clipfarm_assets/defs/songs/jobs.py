"""The jobs of the song pipeline."""

from typing import Final

import dagster as dg

from clipfarm_assets.defs.songs import common

songs_observe = dg.define_asset_job(
    "songs_observe",
    selection=dg.AssetSelection.assets(common.METADATA, common.MEDIA),
    description="Look whether the segments changed, and add a partition for each new album.",
)
songs_split = dg.define_asset_job(
    "songs_split",
    selection=dg.AssetSelection.assets(common.SPLITS),
    description="Divide songs into train, val and test; those that have a split keep it.",
)
songs_align = dg.define_asset_job(
    "songs_align",
    selection=dg.AssetSelection.assets(common.ALIGNMENT),
    description="Check whether audio and MIDI of an album's segments are of one moment.",
)
songs_features = dg.define_asset_job(
    "songs_features",
    selection=dg.AssetSelection.assets(common.FEATURES),
    description="Compute what of an album's segments is not computed yet.",
)
songs_train = dg.define_asset_job(
    "songs_train",
    selection=dg.AssetSelection.assets(common.FUSION_MODELS),
    description="Fit a fusion strategy, or all of them, a run each.",
)
songs_compare = dg.define_asset_job(
    "songs_compare",
    selection=dg.AssetSelection.assets(common.COMPARISON),
    description="Judge the strategies side by side, and against each modality alone.",
)

ALL_JOBS: Final = (
    songs_observe,
    songs_split,
    songs_align,
    songs_features,
    songs_train,
    songs_compare,
)
