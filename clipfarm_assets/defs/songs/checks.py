"""The promises about songs and their models, shown a partition."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clipfarm_assets.contracts.checks import Verdict
from clipfarm_assets.defs.songs import common
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.checks import WHOLE, Evaluate, promise_check
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.songs import promises
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import FUSION_STRATEGIES, FusionStrategy, SongLayout
from clipfarm_assets.training.song_config import SongConfig

OfStrategy = Callable[[ObjectStore, SongLayout, FusionStrategy], Verdict]
OfComparison = Callable[[ObjectStore, SongLayout, SongConfig, FusionStrategy], Verdict]


def _whole(examine: Callable[[ObjectStore, SongLayout, SongConfig], Verdict]) -> Evaluate:
    def evaluate(deployment: Deployment, _keys: Sequence[str]) -> Mapping[str, Verdict]:
        return {WHOLE: examine(deployment.store, deployment.songs, deployment.song_config)}

    return evaluate


def _files_agree(store: ObjectStore, layout: SongLayout, config: SongConfig) -> Verdict:
    return promises.files_agree(store, layout, config.data.columns)


def _segments_aligned(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
    return {
        key: promises.segments_aligned(
            deployment.store,
            deployment.songs,
            deployment.song_config,
            common.album_of(deployment, key),
        )
        for key in keys
    }


def _each_strategy(examine: OfStrategy) -> Evaluate:
    def evaluate(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
        return {
            key: examine(deployment.store, deployment.songs, partitions.as_fusion_strategy(key))
            for key in keys
        }

    return evaluate


def _all_strategies(examine: OfComparison) -> Evaluate:
    """All strategies as one: an asset without partitions has one result."""

    def evaluate(deployment: Deployment, _keys: Sequence[str]) -> Mapping[str, Verdict]:
        store, layout, config = deployment.store, deployment.songs, deployment.song_config
        found = {s: examine(store, layout, config, s) for s in FUSION_STRATEGIES}
        facts: dict[str, Any] = {
            f"{strategy}/{fact}": value
            for strategy, verdict in found.items()
            for fact, value in verdict.facts.items()
        }
        findings = tuple(each for verdict in found.values() for each in verdict.findings)
        return {WHOLE: Verdict(findings, sum(each.examined for each in found.values()), facts)}

    return evaluate


ALL = [
    promise_check(
        common.MEDIA,
        "files_agree",
        "Both files have the columns they need, and the same rows with the same values in them.",
        None,
        _whole(_files_agree),
        blocking=True,
    ),
    promise_check(
        common.METADATA,
        "modalities_cover",
        "Lyrics, audio and MIDI are there in the shares of segments that the settings declare.",
        None,
        _whole(promises.modalities_cover),
    ),
    promise_check(
        common.SPLITS,
        "songs_in_one_split",
        "Every segment has a split, and no song is in two; split by album, no album either.",
        None,
        _whole(promises.songs_in_one_split),
        blocking=True,
    ),
    promise_check(
        common.ALIGNMENT,
        "segments_aligned",
        "Enough of the album's pairs of audio and MIDI are of one moment, as they are or corrected "
        "by the metadata.",
        partitions.song_albums,
        _segments_aligned,
    ),
    promise_check(
        common.FUSION_MODELS,
        "snapshot_intact",
        "Every file of the newest model is there with the bytes that were published, also under "
        "the keys that people know.",
        partitions.fusion_strategies,
        _each_strategy(promises.model_intact),
        blocking=True,
    ),
    promise_check(
        common.FUSION_MODELS,
        "gradients_balanced",
        "In no epoch were one modality's gradients many times another's.",
        partitions.fusion_strategies,
        _each_strategy(promises.gradients_balanced),
    ),
    promise_check(
        common.COMPARISON,
        "fusion_beats_single",
        "Every strategy has a better macro-F1 than each modality alone, on test and beyond chance.",
        None,
        _all_strategies(promises.fusion_beats_single),
    ),
    promise_check(
        common.COMPARISON,
        "degrades_gracefully",
        "With a modality taken away no strategy loses more macro-F1 than the settings allow.",
        None,
        _all_strategies(promises.degrades_gracefully),
    ),
]
