"""The tables of segments, observed, and how songs are divided."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from clipfarm_assets.defs.songs import common, shown
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.songs.segments import (
    MediaReport,
    SegmentReport,
    observe_media,
    observe_metadata,
)
from clipfarm_assets.pipelines.songs.splits import SongSplitReport, make_splits


def _source(key: dg.AssetKey, reads: str, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        key,
        group_name=common.GROUP,
        owners=common.OWNERS,
        kinds={"parquet"},
        code_version="1",
        metadata={"reads": f"{reads} (configurable)"},
        description=description,
    )


@dg.multi_observable_source_asset(
    specs=[
        _source(
            common.METADATA,
            "songs/raw/training_segments_metadata.parquet",
            "Segments of songs as somebody put them there: labels, lyrics, times, paths. Only "
            "observed here; the data version is the hash of the file. Its albums are partitions.",
        ),
        _source(
            common.MEDIA,
            "songs/raw/training_segments_media.parquet, songs/raw/files/",
            "The same segments with their audio and MIDI. Only its footer is read here; the data "
            "version is another one whenever the file is written again.",
        ),
    ]
)
def segments(
    context: dg.AssetExecutionContext, deployment: DeploymentResource
) -> Iterator[dg.ObserveResult]:
    """Read the metadata and the media's footer, and add partitions for new albums."""
    with deployment.open() as opened:
        columns = opened.song_config.data.columns
        found = observe_metadata(opened.store, opened.songs, columns)
        media = observe_media(opened.store, opened.songs, columns)
        layout = opened.songs
    added, gone = _partitions_for(context, found)
    for note in media.notes:
        context.log.warning(note)
    yield dg.ObserveResult(
        asset_key=common.METADATA,
        data_version=dg.DataVersion(found.data_version),
        metadata={
            "key": layout.metadata(),
            **_segments_metadata(found),
            "albums_added": ", ".join(added) or "none",
            "albums_gone": ", ".join(gone) or "none",
        },
    )
    yield dg.ObserveResult(
        asset_key=common.MEDIA,
        data_version=dg.DataVersion(media.data_version),
        metadata={"key": layout.media(), **_media_metadata(media)},
    )


def _partitions_for(
    context: dg.AssetExecutionContext, found: SegmentReport
) -> tuple[list[str], list[str]]:
    """Add a partition for each new album; which were added, and which have no segments any more.

    The latter stay: what was made of them is still there to look at.
    """
    albums = common.albums_by_key(found.albums)
    added = partitions.add_albums(context.instance, list(albums))
    gone = set(partitions.known_albums(context.instance)) - albums.keys()
    return added, sorted(gone)


def _segments_metadata(found: SegmentReport) -> dict[str, Any]:
    return {
        "dagster/row_count": found.rows,
        "columns": found.columns,
        "segments": len(found.segments),
        "rows_left_out": found.left_out,
        "songs": found.songs,
        "labels": metadata.records([{"label": x, "segments": n} for x, n in found.labels.items()]),
        **shown.coverage(found.segments),
        "schema": found.schema.summary(),
        **metadata.problems(found.problems),
    }


def _media_metadata(found: MediaReport) -> dict[str, Any]:
    return {
        "dagster/row_count": found.rows,
        "bytes": found.size,
        "row_groups": found.row_groups,
        "largest_row_group_bytes": found.largest_group,
        **{f"stored/{name}": n for name, n in found.stored.items()},
        "schema": found.schema.summary(),
        "notes": "; ".join(found.notes) or "none",
    }


@dg.asset(
    **{
        **common.asset_options(
            "splits", kinds={"json"}, code_version="1", writes="songs/splits.json"
        ),
        # Without partitions there is nothing to divide, whatever the deployment says of backfills.
        "backfill_policy": dg.BackfillPolicy.single_run(),
    },
    deps=[common.METADATA],
    description="Train, val and test: a song, with all albums that it is on, is in one; labels are "
    "spread evenly, and segments keep the split they have.",
)
def splits(
    context: dg.AssetExecutionContext, config: common.SongRun, deployment: DeploymentResource
) -> dg.MaterializeResult[Any]:
    """Deal songs, or albums, out."""
    with deployment.open() as opened:
        settings = config.over(opened, common.SPLITS)
        report = make_splits(opened.store, opened.songs, settings, common.say(context))
        key = opened.songs.splits()
    return dg.MaterializeResult(
        metadata={"key": key, **_split_metadata(report)},
        data_version=dg.DataVersion(report.version),
    )


def _split_metadata(report: SongSplitReport) -> dict[str, Any]:
    return {
        **metadata.split_changes(report, "segments"),
        "by": report.splits.by,
        "classes": metadata.counts_by("split", report.classes),
        "unlabelled": report.unlabelled,
        "retired": len(report.splits.retired),
        "notes": metadata.records([{"note": note} for note in report.notes]),
    }
