"""From what a person put there to shards: the manifest, observed, splits, and packed samples."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import dagster as dg
from pydantic import Field

from clipfarm_assets.contracts.meme_splits import MAX_DISTANCE, RATIOS, SEED
from clipfarm_assets.defs.memes import common, shown
from clipfarm_assets.orchestration import metadata, partitions
from clipfarm_assets.orchestration.config_defaults import defaults_from
from clipfarm_assets.orchestration.each_partition import Made, materialise_each
from clipfarm_assets.orchestration.executor import OWN_PROCESS
from clipfarm_assets.orchestration.resources import DeploymentResource
from clipfarm_assets.pipelines.memes.manifest import ManifestReport, observe
from clipfarm_assets.pipelines.memes.shard_set import ShardOptions, ShardReport
from clipfarm_assets.pipelines.memes.shards import write_shards
from clipfarm_assets.pipelines.memes.splits import SplitReport, make_splits, read_divided
from clipfarm_assets.storage.images import DEFAULT_LIMITS, ImageLimits

_MIB = 1 << 20
_OPTIONS = ShardOptions()


@dg.multi_observable_source_asset(
    specs=[
        dg.AssetSpec(
            common.MANIFEST,
            group_name=common.GROUP,
            owners=common.OWNERS,
            kinds={"json"},
            code_version="1",
            metadata={
                "reads": "memes/raw/data_manifest.jsonl, ocr.jsonl, label_taxonomy.json, images/ "
                "(configurable)"
            },
            description="Memes as somebody put them there: rows, words read off the images, and "
            "images. Only observed here; the data version is the hash of both files and of the "
            "images' names and sizes.",
        )
    ]
)
def manifest(deployment: DeploymentResource) -> dg.ObserveResult:
    """Read both files and list the images."""
    with deployment.open() as opened:
        found = observe(opened.store, opened.memes)
        key = opened.memes.manifest()
    return dg.ObserveResult(
        asset_key=common.MANIFEST,
        data_version=dg.DataVersion(found.data_version),
        metadata={"key": key, **_manifest_metadata(found)},
    )


def _manifest_metadata(found: ManifestReport) -> dict[str, Any]:
    return {
        "dagster/row_count": found.rows,
        "lines_left_out": found.left_out,
        "images": found.images,
        "image_bytes": found.image_bytes,
        "images_no_row_names": found.unused_images,
        "rows_with_ocr": found.with_ocr,
        "labels": metadata.records(
            [
                {"label": label, "class": name, "rows": n, "share": metadata.rounded(shares[name])}
                for label, classes in found.labels.items()
                for shares in [found.shares(label)]
                for name, n in classes.items()
            ]
        ),
        **{f"unlabelled/{label}": n for label, n in found.unlabelled.items()},
        "sources": metadata.records([{"source": s, "rows": n} for s, n in found.sources.items()]),
        **metadata.problems(found.problems),
    }


@defaults_from("CLIPFARM_MEME_SPLITS_CONFIG")
class SplitsConfig(dg.Config):
    """How memes are divided."""

    ratios: list[float] = Field(default=list(RATIOS), description="Shares of train, val and test.")
    seed: int = Field(
        default=SEED,
        ge=0,
        description="Of the order in which groups are dealt out. Another seed, or other ratios, "
        "deal every meme out anew.",
    )
    max_distance: int = Field(
        default=MAX_DISTANCE,
        ge=0,
        le=31,
        description="Bits of 64 that the perceptual hashes of one image may differ in.",
    )
    longest_side: int = Field(
        default=DEFAULT_LIMITS.longest_side,
        ge=16,
        le=16_384,
        description="Pixels; larger images are shrunk to it, and counted.",
    )
    pixels: int = Field(
        default=DEFAULT_LIMITS.pixels,
        ge=1,
        description="An image that claims to have more is not decoded, and reported.",
    )
    file_mib: int = Field(
        default=DEFAULT_LIMITS.file_bytes // _MIB,
        ge=1,
        le=4096,
        description="A larger file of an image is not read, and reported.",
    )
    workers: int = Field(default=4, ge=1, le=256, description="Images hashed at a time.")

    @property
    def limits(self) -> ImageLimits:
        """Of images, as the pipeline takes them."""
        return ImageLimits(self.file_mib * _MIB, self.pixels, self.longest_side)


@dg.asset(
    **{
        **common.asset_options(
            "splits",
            kinds={"json"},
            code_version="1",
            writes="memes/splits.json, memes/label_taxonomy.json",
        ),
        # Without partitions there is nothing to divide, whatever the deployment says of backfills.
        "backfill_policy": dg.BackfillPolicy.single_run(),
    },
    deps=[common.MANIFEST],
    op_tags=OWN_PROCESS,
    description="Train, val and test: near-duplicates by words or by picture stay together, joint "
    "labels are spread evenly, and memes keep the split they have.",
)
def splits(
    context: dg.AssetExecutionContext, config: SplitsConfig, deployment: DeploymentResource
) -> dg.MaterializeResult[Any]:
    """Hash the images, group near-duplicates, and deal groups out."""
    with deployment.open() as opened:
        report = make_splits(
            opened.store,
            opened.memes,
            ratios=config.ratios,
            seed=config.seed,
            max_distance=config.max_distance,
            limits=config.limits,
            workers=config.workers,
            say=common.say(context),
        )
        key = opened.memes.splits()
    return dg.MaterializeResult(
        metadata={"key": key, **_split_metadata(report)},
        data_version=dg.DataVersion(report.version),
    )


def _split_metadata(report: SplitReport) -> dict[str, Any]:
    classes = [
        {"split": split, "label": label, **counts}
        for split, labels in report.classes.items()
        for label, counts in labels.items()
    ]
    return {
        **metadata.split_changes(report, "memes"),
        "classes": metadata.records(classes),
        "near_duplicates": report.near_duplicates,
        "retired": len(report.splits.retired),
        "images_read": report.images_read,
        "images_known": report.images_known,
        "notes": metadata.records([{"note": note} for note in report.notes]),
        **metadata.problems(report.image_problems, "image_problem"),
    }


@defaults_from("CLIPFARM_MEME_SHARDS_CONFIG")
class ShardsConfig(dg.Config):
    """How shards are cut."""

    shard_rows: int = Field(
        default=_OPTIONS.shard_rows, ge=1, le=1_000_000, description="Most samples of a shard."
    )
    shard_mib: int = Field(
        default=_OPTIONS.shard_bytes // _MIB,
        ge=1,
        le=65_536,
        description="Most MiB of a shard; whoever reads has one in memory.",
    )
    workers: int | None = Field(
        default=None, ge=1, le=256, description="Threads that decode and encode; unset, one a core."
    )

    def options(self, limits: ImageLimits) -> ShardOptions:
        """As the pipeline takes it, with the limits that images were hashed within."""
        made = ShardOptions(self.shard_rows, self.shard_mib * _MIB, limits)
        return made if self.workers is None else replace(made, workers=self.workers)


@dg.asset(
    **common.asset_options(
        "shards",
        kinds={"python"},
        code_version="1",
        writes="memes/shards/<split>/shard-000000.tar, index.json",
    ),
    partitions_def=partitions.meme_splits,
    deps=[common.SPLITS],
    op_tags=OWN_PROCESS,
    description="WebDataset shards of (txt, png, json): OCR and caption, the picture as RGB PNG, "
    "labels and group. The same memes give the same bytes; what can't be packed is reported.",
)
def shards(
    context: dg.AssetExecutionContext, config: ShardsConfig, deployment: DeploymentResource
) -> Iterator[dg.MaterializeResult[Any]]:
    """Pack each split of the run."""
    with deployment.open() as opened:
        store, layout = opened.store, opened.memes
        memes, divided = read_divided(store, layout)

        def make(key: str) -> Made:
            split = partitions.as_split(key)
            report = write_shards(
                store,
                layout,
                split,
                memes.rows,
                divided,
                memes.taxonomy,
                config.options(divided.images),
                common.say(context),
            )
            if report.index.problems:
                context.log.warning(
                    "%s: %d problems with its rows: %s",
                    split,
                    len(report.index.problems),
                    ", ".join(f"{kind} {n}" for kind, n in report.problem_counts.items()),
                )
            index = layout.shard_index(split)
            return Made(report.index.version, {"index": index, **_shard_metadata(report)})

        yield from materialise_each(context, make)


def _shard_metadata(report: ShardReport) -> dict[str, Any]:
    index = report.index
    size = sum(shard.bytes for shard in index.shards)
    return {
        "dagster/row_count": index.rows,
        "shards": len(index.shards),
        "bytes": size,
        "written": report.written,
        "kept": report.kept,
        "removed": report.removed,
        "labels": metadata.records(
            [
                {"label": label, "class": index.classes[label][number], "samples": n}
                for label, counts in index.labels.items()
                for number, n in counts.items()
            ]
        ),
        **{f"image/{change}": n for change, n in sorted(index.changes.items())},
        "problems": len(index.problems),
        **{f"problem/{kind}": n for kind, n in report.problem_counts.items()},
        "problem_samples": shown.first_problems(index.problems),
        "made_with": metadata.records(
            [{"what": what, "is": value} for what, value in index.made_with.items()]
        ),
        "seconds": round(report.seconds, 3),
        "memes_per_second": metadata.rounded(index.rows / max(report.seconds, 1e-9)),
    }
