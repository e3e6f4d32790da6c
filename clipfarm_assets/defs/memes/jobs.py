"""The jobs of the meme pipeline."""

from typing import Final

import dagster as dg

from clipfarm_assets.defs.memes import common

memes_observe = dg.define_asset_job(
    "memes_observe",
    selection=dg.AssetSelection.assets(common.MANIFEST),
    description="Look whether the memes changed.",
)
memes_split = dg.define_asset_job(
    "memes_split",
    selection=dg.AssetSelection.assets(common.SPLITS),
    description="Divide memes into train, val and test; those that have a split keep it.",
)
memes_pack = dg.define_asset_job(
    "memes_pack",
    selection=dg.AssetSelection.assets(common.SHARDS),
    description="Pack a split into shards, or all splits in one run.",
)
memes_train = dg.define_asset_job(
    "memes_train",
    selection=dg.AssetSelection.assets(
        *common.EXPERTS.values(), common.FUSION_MODEL, common.EVALUATION
    ),
    description="Experts, fusion model and evaluation of a label.",
)
memes_evaluate = dg.define_asset_job(
    "memes_evaluate",
    selection=dg.AssetSelection.assets(common.EVALUATION),
    description="Judge the models of a label as they are, and let the better one serve.",
)

ALL_JOBS: Final = (memes_observe, memes_split, memes_pack, memes_train, memes_evaluate)
