"""What is made of each album before anything is learned: alignment and features."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg

from clipfarm_assets.defs.songs import common
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.each_partition import Made, materialise_each
from clipfarm_assets.orchestration.executor import OWN_PROCESS
from clipfarm_assets.orchestration.resources import DeploymentResource, EncodersResource
from clipfarm_assets.pipelines.songs.alignment import AlignmentReport, check_alignment
from clipfarm_assets.pipelines.songs.features import FeaturesReport, compute_features

_SHOWN = 20
_SOURCES = [dg.AssetDep(common.METADATA), dg.AssetDep(common.MEDIA)]


@dg.asset(
    **common.asset_options(
        "alignment",
        kinds={"parquet"},
        code_version="1",
        writes="songs/alignment/album=<album>.parquet",
    ),
    partitions_def=partitions.song_albums,
    deps=_SOURCES,
    op_tags=OWN_PROCESS,
    description="Whether audio and MIDI of each segment are of one moment, by their timestamps and "
    "by ear; what is corrected by the metadata, and what is misaligned.",
)
def alignment(
    context: dg.AssetExecutionContext, config: common.SongRun, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Look at, and listen to, each album's pairs."""
    with deployment.open() as opened:
        settings = config.over(opened, common.ALIGNMENT)

        def make(key: str) -> Made:
            album = common.album_of(opened, key)
            report = check_alignment(
                opened.store, opened.songs, settings, album, common.say(context)
            )
            bad = report.counts["misaligned"]
            if bad:
                excluded = settings.preprocessing.alignment.exclude_misaligned
                what = "left out" if excluded else "flagged, and used all the same"
                told = "%s: %d of %d pairs misaligned: %s"
                context.log.warning(told, album, bad, report.pairs, what)
            return Made(report.version, _alignment_metadata(report))

        yield from materialise_each(context, make)


def _alignment_metadata(report: AlignmentReport) -> dict[str, Any]:
    apart = [row for row in report.rows if row.verdict in {"corrected", "misaligned", "unverified"}]
    rows = [
        {
            "segment": row.segment_id,
            "verdict": row.verdict,
            "heard_late": metadata.rounded(row.heard_offset),
            "z": metadata.rounded(row.z),
            "correction": metadata.rounded(row.correction),
            "reason": row.reason,
        }
        for row in apart[:_SHOWN]
    ]
    return {
        "key": report.key,
        "album": report.album,
        "dagster/row_count": len(report.rows),
        **{f"segments/{verdict}": n for verdict, n in report.counts.items()},
        "pairs": report.pairs,
        "aligned_share": metadata.rounded(report.aligned_share),
        "not_simply_aligned": metadata.records(rows),
        "listened_to": report.listened,
        "known": report.reused,
        **metadata.problems(report.problems),
    }


@dg.asset(
    **common.asset_options(
        "features",
        kinds={"numpy"},
        code_version="1",
        writes="songs/features/<kind>/<version>/album=<album>.npz",
    ),
    partitions_def=partitions.song_albums,
    deps=_SOURCES,
    op_tags=OWN_PROCESS,
    description="Text embeddings that the metadata has not, spectrograms, and what pretrained "
    "audio encoders say, as far as the settings' networks read them; each by the version of what "
    "it is computed with. Only what is missing is computed.",
)
def features(
    context: dg.AssetExecutionContext,
    config: common.SongRun,
    deployment: DeploymentResource,
    encoders: EncodersResource,
) -> Iterator[dg.MaterializeResult[Any]]:
    """Compute what is missing of each album."""
    with deployment.open() as opened:
        settings = config.over(opened, common.FEATURES)

        def make(key: str) -> Made:
            report = compute_features(
                opened.store,
                opened.songs,
                settings,
                common.album_of(opened, key),
                say=common.say(context),
                cache_dir=Path(encoders.cache_dir),
                profile=encoders.profile,
            )
            for each in report.kinds.values():
                if each.is_stand_in:
                    context.log.warning("%s: %s %s", each.kind, each.model, common.IS_STAND_IN)
            return Made(report.version, _features_metadata(report))

        yield from materialise_each(context, make)


def _features_metadata(report: FeaturesReport) -> dict[str, Any]:
    kinds = [
        {
            "kind": kind,
            "version": each.version,
            "model": each.model or "none",
            "stand_in": each.is_stand_in,
            "segments": each.rows,
            "computed": each.computed,
            "known": each.reused,
            "shape": " x ".join(map(str, each.shape)),
            "texts_cut": each.texts_cut,
        }
        for kind, each in report.kinds.items()
    ]
    return {
        "album": report.album,
        "dagster/row_count": report.segments,
        "text_embeddings_in_metadata": report.in_metadata,
        **{f"key/{kind}": each.key for kind, each in report.kinds.items()},
        **{f"computed/{kind}": each.computed for kind, each in report.kinds.items()},
        "kinds": metadata.records(kinds),
        **metadata.problems(report.problems),
    }
