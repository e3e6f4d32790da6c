"""The promises about songs, as functions from what is stored to findings; shown as asset checks."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from clipfarm_assets.contracts.checks import Finding, Verdict
from clipfarm_assets.contracts.song_columns import MODALITIES, Modality, SegmentColumns
from clipfarm_assets.contracts.song_segments import coverage_by_album, shares_hold
from clipfarm_assets.contracts.song_splits import no_song_in_two_splits
from clipfarm_assets.fusion.options import StrategyName
from clipfarm_assets.pipelines.songs.alignment_rows import read_alignment
from clipfarm_assets.pipelines.songs.alignment_rule import VERDICTS
from clipfarm_assets.pipelines.songs.comparison import (
    COMPARISON,
    OTHER_SETTINGS,
    fitted_otherwise,
)
from clipfarm_assets.pipelines.songs.comparison_files import (
    WITH_DROPOUT,
    WITHOUT_DROPOUT,
    told_of_affected,
)
from clipfarm_assets.pipelines.songs.fusion import GRADIENTS, METRICS
from clipfarm_assets.pipelines.songs.segments import compare_rows, observe_media, read_segments
from clipfarm_assets.pipelines.songs.splits import read_splits
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.song_layout import SongLayout
from clipfarm_assets.training.model_versions import newest_intact
from clipfarm_assets.training.snapshot import BadSnapshot
from clipfarm_assets.training.song_config import SongConfig
from clipfarm_assets.training.song_snapshot import (
    NoSongModel,
    current_version,
    model_folder,
    open_song_model,
)

LEAST_ALIGNED: Final = 0.8
"""Share of an album's pairs of audio and MIDI that must be of one moment, corrected ones too."""

_COMPARE: Final = "materialise songs/strategy_comparison"


def files_agree(
    store: ObjectStore, layout: SongLayout, columns: SegmentColumns | None = None
) -> Verdict:
    """Both files have the columns they need, and the same rows with the same values in them.

    Raises:
        NoSegments, BadTable, BadSegments: A file is missing, or is none of segments.
    """
    columns = columns or SegmentColumns()
    metadata = read_segments(store, layout, columns)
    media = observe_media(store, layout, columns)
    rows = compare_rows(store, layout, columns)
    findings = [
        Finding(f"{key}: {found.subject}", found.problem)
        for key, verdict in ((layout.metadata(), metadata.schema), (layout.media(), media.schema))
        for found in verdict.findings
    ]
    # That the numbers of rows differ is a finding of the footers already.
    told = {(found.subject, found.problem) for found in media.schema.findings}
    findings += [found for found in rows.findings if (found.subject, found.problem) not in told]
    facts = {
        "rows": metadata.rows,
        "columns": metadata.columns,
        "row_groups": media.row_groups,
        "media_bytes": media.size,
        **{f"stored/{name}": n for name, n in media.stored.items()},
        **{f"problem/{kind}": n for kind, n in metadata.problems.counts.items()},
    }
    return Verdict(tuple(findings), metadata.rows, facts)


def modalities_cover(store: ObjectStore, layout: SongLayout, config: SongConfig) -> Verdict:
    """Each modality is there in the share of segments that the settings declare, as metadata say.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments`.
    """
    declared = config.data.declared
    shares: dict[Modality, float] = {
        modality: share
        for modality in MODALITIES
        if (share := getattr(declared, modality)) is not None
    }
    report = read_segments(store, layout, config.data.columns)
    verdict = shares_hold(report.coverage, shares, declared.tolerance)
    by_album = {
        f"{album}/{modality}": round(found.share(modality), 4)
        for album, found in coverage_by_album(report.segments).items()
        for modality in MODALITIES
    }
    return Verdict(verdict.findings, verdict.examined, {**verdict.facts, **by_album})


def songs_in_one_split(store: ObjectStore, layout: SongLayout, config: SongConfig) -> Verdict:
    """Every segment has a split, and no song, and by album no album, is in two.

    Raises:
        NoSegments, BadTable, BadSegments: See `read_segments`.
        NoSongSplits, BadSplits: See `read_splits`.
    """
    report = read_segments(store, layout, config.data.columns)
    return no_song_in_two_splits(report.segments, read_splits(store, layout))


def segments_aligned(
    store: ObjectStore,
    layout: SongLayout,
    config: SongConfig,
    album: str,
    least_share: float = LEAST_ALIGNED,
) -> Verdict:
    """Enough of an album's pairs of audio and MIDI are aligned, as they are or corrected.

    Misaligned ones are findings where they are too many; otherwise facts alone.

    Raises:
        NoAlignment: It was not checked yet, or with other settings.
        BadTable: Its object is damaged.
    """
    rows = read_alignment(store, layout, [album], config.preprocessing)
    counts = Counter(row.verdict for row in rows.values())
    pairs = len(rows) - counts["not_applicable"]
    together = counts["aligned"] + counts["corrected"]
    share = together / pairs if pairs else 1.0
    facts: dict[str, Any] = {
        **{str(verdict): counts[verdict] for verdict in VERDICTS},
        "aligned_share": round(share, 4),
        "misaligned_are": "excluded"
        if config.preprocessing.alignment.exclude_misaligned
        else "flagged",
    }
    findings: tuple[Finding, ...] = ()
    if share < least_share:
        told = f"{together} of {pairs} pairs are aligned, expected {least_share:.0%} at least"
        misaligned = (row for row in rows.values() if row.is_misaligned)
        findings = (
            Finding(f"album {album}", told),
            *(Finding(f"id {row.segment_id}", row.reason) for row in misaligned),
        )
    return Verdict(findings, pairs, facts)


def model_intact(store: ObjectStore, layout: SongLayout, model: str) -> Verdict:
    """A model's files are those that were published, also under the keys that people know."""
    folder = model_folder(layout, model)
    return newest_intact(folder, lambda: open_song_model(store, layout, model))


def gradients_balanced(store: ObjectStore, layout: SongLayout, model: str) -> Verdict:
    """In no epoch of a model's fit were one modality's gradients many times another's, or none.

    How many times is a setting, ``training.imbalance_ratio``. A finding says what to do. A modality
    that no segment of train has needs no gradients; facts say how many have each.
    """
    try:
        found = open_song_model(store, layout, model)
        history, present = found.json(GRADIENTS), found.json(METRICS)["present"]["train"]
    except (BadSnapshot, NoSongModel) as error:
        return Verdict((Finding(model, str(error)),), 0)
    findings = tuple(
        Finding(f"{model}, epoch {epoch}", told) for epoch, told in history["advice"].items()
    )
    epochs = max(map(len, history["norms"].values()), default=0)
    idle = {name: values.count(0.0) for name, values in history["norms"].items()}
    findings += tuple(
        Finding(
            f"{model}, {name}",
            f"got no gradients in {idle[name]} of {epochs} epochs, though {segments} segments of "
            "train have it, so that it learnt nothing then: look at what its encoder is given, or "
            "train with another training.seed",
        )
        for name, segments in present.items()
        if segments and idle.get(name)
    )
    times = [each for each in history["strongest_to_weakest"] if each is not None]
    facts: dict[str, Any] = {"allowed": history["ratio"]}
    if times:
        facts |= {"most_times": round(max(times), 3), "last_times": round(times[-1], 3)}
    facts |= {f"train_segments/{name}": n for name, n in present.items()}
    facts |= {f"last_norm/{name}": values[-1] for name, values in history["norms"].items()}
    return Verdict(findings, epochs, facts)


def fusion_beats_single(
    store: ObjectStore, layout: SongLayout, config: SongConfig, strategy: StrategyName
) -> Verdict:
    """A strategy is better than every modality alone, beyond chance; facts say by how much.

    That counts only where all were fitted by the same settings, and judged by the deployment's.
    """
    found = _compared(store, layout, strategy)
    if isinstance(found, Finding):
        return Verdict((found,), 0)
    told = found["verdicts"][strategy]
    difference = told["difference"]
    complete = found["models"][strategy]["complete_macro_f1"]
    facts = {
        "verdict": told["told"],
        "fusion_macro_f1": float(told["fusion"]),
        "best_single": told["best_unimodal"],
        "single_macro_f1": float(told["unimodal"]),
        "difference": float(difference["value"]),
        "lower_bound": float(difference["low"]),
        "upper_bound": float(difference["high"]),
        "confidence": f"{difference['level']:.0%}",
        "resampled_groups": difference["groups"],
        "sign_test_p": float(difference["sign_p"]),
        "complete_segments": found["complete"],
        **({} if complete is None else {"complete_macro_f1": float(complete)}),
    }
    findings = (
        *_judged_otherwise(found, config, strategy),
        *_fitted_otherwise(found, strategy),
        *(() if told["fusion_wins"] else (Finding(strategy, told["told"]),)),
    )
    return Verdict(findings, found["rows"], facts)


def degrades_gracefully(
    store: ObjectStore, layout: SongLayout, config: SongConfig, strategy: StrategyName
) -> Verdict:
    """With a modality taken away a strategy loses no more macro-F1 than the settings allow.

    Bounds are the deployment's, and on all segments, also those that never had the modality;
    facts say what the others lose.
    """
    found = _compared(store, layout, strategy)
    if isinstance(found, Finding):
        return Verdict((found,), 0)
    bounds = config.evaluation.bounds()
    kinds = found["degradation"][strategy]
    findings = (
        *_judged_otherwise(found, config, strategy),
        # What modality dropout is good for shows only beside a twin that differs in nothing else.
        *(_fitted_otherwise(found, strategy) if WITHOUT_DROPOUT in kinds else ()),
        *(
            Finding(
                strategy,
                f"loses {each['lost']:.3f} macro-F1 without {removed}, at most {bounds[removed]:g}",
            )
            for removed, each in kinds[WITH_DROPOUT].items()
            if each["lost"] > bounds[removed]
        ),
    )
    facts: dict[str, Any] = {f"bound/{removed}": bound for removed, bound in bounds.items()}
    facts["confidence"] = f"{found['settings']['confidence']:.0%}"
    for kind, losses in kinds.items():
        words = "lost" if kind == WITH_DROPOUT else "lost_without_dropout"
        for removed, each in losses.items():
            facts[f"{words}/{removed}"] = round(each["lost"], 4)
            facts[f"{words}_of_affected/{removed}"] = told_of_affected(each)
    shares = found["models"][strategy]["shapley"]
    facts |= {f"shapley/{modality}": round(share, 4) for modality, share in shares.items()}
    return Verdict(findings, len(kinds[WITH_DROPOUT]), facts)


def _compared(
    store: ObjectStore, layout: SongLayout, strategy: StrategyName
) -> Mapping[str, Any] | Finding:
    """What the comparison says of the split that decides; or why that says nothing."""
    key = layout.comparison() + COMPARISON
    try:
        metrics: dict[str, Any] = json.loads(store.get(key))
        newest = current_version(store, layout, strategy)
    except (FileNotFoundError, BadSnapshot) as error:
        return Finding(strategy, f"{error}: {_COMPARE}")
    compared = metrics["models"][strategy]
    if compared != newest:
        told = f"the comparison is of version {compared}, the newest is {newest}: {_COMPARE}"
        return Finding(strategy, told)
    if OTHER_SETTINGS not in metrics:
        told = f"the comparison does not say what single modalities were fitted by: {_COMPARE}"
        return Finding(strategy, told)
    judged: dict[str, Any] = metrics["splits"][metrics["decided_on"]]
    return {
        **judged,
        "settings": metrics["settings"],
        OTHER_SETTINGS: metrics[OTHER_SETTINGS][strategy],
    }


def _judged_otherwise(
    found: Mapping[str, Any], config: SongConfig, strategy: StrategyName
) -> tuple[Finding, ...]:
    """A finding where the comparison's run judged by other settings than the deployment's."""
    used: Mapping[str, Any] = found["settings"]
    others = [
        f"{name} {used.get(name)!r}, not {value!r}"
        for name, value in config.evaluation.model_dump(mode="json").items()
        if used.get(name) != value
    ]
    if not others:
        return ()
    told = f"was judged by other settings than the deployment's: {'; '.join(others)}: {_COMPARE}"
    return (Finding(strategy, told),)


def _fitted_otherwise(found: Mapping[str, Any], strategy: StrategyName) -> tuple[Finding, ...]:
    """A finding where what a strategy is compared with was fitted by other settings."""
    others: Mapping[str, Any] = found[OTHER_SETTINGS]
    if not others:
        return ()
    remedy = "materialise songs/fusion_models and songs/strategy_comparison by the same settings"
    return (Finding(strategy, f"{fitted_otherwise(others)}: {remedy}"),)
