"""The promises about memes and their models, shown a partition."""

from collections.abc import Callable, Mapping, Sequence

import dagster as dg

from clipfarm_assets.contracts.checks import Verdict
from clipfarm_assets.defs.memes import common
from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.checks import WHOLE, Evaluate, promise_check
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.memes import promises
from clipfarm_assets.serving.meme_artifacts import artifacts_resolve
from clipfarm_assets.serving.meme_registry import find_version
from clipfarm_assets.storage.meme_layout import ExpertModality


def _splits_are_grouped(deployment: Deployment, _keys: Sequence[str]) -> Mapping[str, Verdict]:
    return {WHOLE: promises.splits_are_grouped(deployment.store, deployment.memes)}


def _shards_match_splits(deployment: Deployment, keys: Sequence[str]) -> Mapping[str, Verdict]:
    store, layout = deployment.store, deployment.memes
    return {
        key: promises.shards_match_splits(store, layout, partitions.as_split(key)) for key in keys
    }


def _each_label(examine: Callable[[Deployment, str], Verdict]) -> Evaluate:
    def evaluate(deployment: Deployment, labels: Sequence[str]) -> Mapping[str, Verdict]:
        return {label: examine(deployment, label) for label in labels}

    return evaluate


def _expert_intact(modality: ExpertModality) -> Evaluate:
    return _each_label(
        lambda deployment, label: promises.expert_intact(
            deployment.store, deployment.memes, modality, label
        )
    )


def _serving_resolves(deployment: Deployment, label: str) -> Verdict:
    store = deployment.store
    version = find_version(store, deployment.memes, label)
    verdict = artifacts_resolve(store, version)
    facts = {"model_version": version.model_version, "serves": version.system}
    return Verdict(verdict.findings, verdict.examined, {**verdict.facts, **facts})


def _on_label(
    asset: dg.AssetKey, name: str, promise: str, evaluate: Evaluate, *, blocking: bool = True
) -> dg.AssetChecksDefinition:
    return promise_check(asset, name, promise, partitions.meme_labels, evaluate, blocking=blocking)


ALL = [
    promise_check(
        common.SPLITS,
        "splits_are_grouped",
        "Every meme has a split, and memes with the same words or the same picture are in one.",
        None,
        _splits_are_grouped,
        blocking=True,
    ),
    promise_check(
        common.SHARDS,
        "shards_match_splits",
        "Every meme of the split is in its shards, once and as its row says, or reported with a "
        "reason; nobody else is.",
        partitions.meme_splits,
        _shards_match_splits,
        blocking=True,
    ),
    *(
        _on_label(
            asset,
            "expert_intact",
            "Every file of the expert is there with the bytes on record.",
            _expert_intact(modality),
        )
        for modality, asset in common.EXPERTS.items()
    ),
    _on_label(
        common.FUSION_MODEL,
        "snapshot_intact",
        "Every file of the newest fusion model is there with the bytes that were published, also "
        "under the keys that people know.",
        _each_label(lambda d, label: promises.fusion_intact(d.store, d.memes, label)),
    ),
    _on_label(
        common.EVALUATION,
        "fusion_beats_unimodal",
        "Fusion has a better macro-F1 than the best modality alone, on test and beyond chance: the "
        "lower bound of a paired bootstrap by group is above 0. Where it hasn't, that modality "
        "serves.",
        _each_label(lambda d, label: promises.fusion_beats_unimodal(d.store, d.memes, label)),
        blocking=False,
    ),
    _on_label(
        common.EVALUATION,
        "binding_resolves",
        "What serves leads to files with the bytes that were promoted.",
        _each_label(_serving_resolves),
    ),
]
