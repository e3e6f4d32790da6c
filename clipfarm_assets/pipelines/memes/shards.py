"""From rows, splits and images to a split's set of shards; also from shards of other writers.

Samples lie in an order that is drawn from their ids and the splits' seed, so that it does not
depend on the manifest's, and a stretch of it is as mixed as the whole. A sample's JSON has ``id``,
``labels``, ``group``, ``source``, ``caption``, ``ocr``, and of the image its path, ``width`` and
``height``.
"""

import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from io import BytesIO
from typing import Any, Final

from clipfarm_assets.contracts.label_taxonomy import LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import SPLITS, MemeRow, RowProblem, Split, read_rows
from clipfarm_assets.contracts.meme_splits import MemeSplits
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.memes.hashes import IMAGE_CORRUPT, IMAGE_TOO_LARGE
from clipfarm_assets.pipelines.memes.manifest import IMAGE_NOT_FOUND, list_images
from clipfarm_assets.pipelines.memes.rows import NoShards, iter_samples, refuse_bad_sample
from clipfarm_assets.pipelines.memes.shard_set import Made, ShardOptions, ShardReport, publish
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.images import BadImage, ImageLimits, rgb_png
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore, OutsideStore
from clipfarm_assets.storage.tar_shards import BadSample, Sample, read_shard, stored_bytes

__all__ = ["PROBLEMS", "ShardOptions", "ShardReport", "import_shards", "write_shards"]

_FIELDS: Final = ("id", "source", "labels", "label")
_PLACE: Final = "in-the-shard"  # stands for the path that a line of the manifest must have

# fmt: off
PROBLEMS: Final[Mapping[str, str]] = {
    "no_split": "rows of the manifest that the splits don't know; told with every split",
    "no_row": "memes of the splits that the manifest no longer has",
    IMAGE_NOT_FOUND: "no object of their image",
    "bad_image_path": "their image is outside the store",
    IMAGE_TOO_LARGE: "the file of their image has more bytes than are read",
    IMAGE_CORRUPT: "their image can't be decoded, or has more pixels than are decoded",
    "unstorable": "their text or JSON can't be written, or a part is longer than readers take",
    "bad_sample": "files of another writer's shard that make no sample",
    "in_other_split": "another split's shards have a sample of that id",
    "duplicate_sample": "another sample of these shards has the same key",
}
# fmt: on
"""Why samples are left out, beside the problems of their lines in the manifest."""


def write_shards(
    store: ObjectStore,
    layout: MemeLayout,
    split: Split,
    rows: Sequence[MemeRow],
    splits: MemeSplits,
    taxonomy: LabelTaxonomy,
    options: ShardOptions | None = None,
    say: Say = silent,
) -> ShardReport:
    """Write a split's set of shards; see `shard_set.publish`.

    Images are decoded whole and stored as RGB PNG; see `images`. What can't be stored is left out,
    with a problem in the report and in the index.

    Args:
        store: Where images are, and shards will be.
        layout: Names of objects.
        split: Which split.
        rows: All rows, of all splits, with different ids and keys, as `read_rows` gives them.
        splits: Whose they are.
        taxonomy: What the numbers of the rows' labels stand for; the index keeps it.
        options: How.
        say: Told how far it is.

    Raises:
        ValueError: Rows share an id or a key.
        ObjectChanged, BadIndex: See `publish`.
    """
    options = options or ShardOptions()
    chosen, problems = _of_split(rows, splits, split)
    faults = _faults(chosen, list_images(store, layout), layout, options.limits)

    def fetched() -> Generator[tuple[MemeRow, bytes | FileNotFoundError | None], None, None]:
        keys = (layout.image(row.image) for row in chosen if row.id not in faults)
        with closing(store.get_many(keys, 2 * options.workers)) as objects:
            for row in chosen:
                yield row, None if row.id in faults else next(objects)[1]

    def made(item: tuple[MemeRow, bytes | FileNotFoundError | None]) -> Made:
        row, data = item
        if data is None:
            return faults[row.id]
        if isinstance(data, FileNotFoundError):
            return _left_out(IMAGE_NOT_FOUND, _where(row), f"no object {layout.image(row.image)}")
        return _made(row, data, splits.group_of[row.id], _where(row), options.limits)

    def make() -> Generator[Made, None, None]:
        progress = Progress(f"{split} shards", len(chosen), say)
        yield Made(None, problems=problems)
        with (
            closing(fetched()) as items,
            closing(
                ordered_map(made, items, workers=options.workers, ahead=2 * options.workers)
            ) as done,
        ):
            for found in done:
                yield found
                progress.step()

    return publish(store, layout, split, make, taxonomy, options, say)


def import_shards(
    store: ObjectStore,
    layout: MemeLayout,
    split: Split,
    keys: Sequence[str],
    taxonomy: LabelTaxonomy,
    options: ShardOptions | None = None,
    say: Say = silent,
) -> ShardReport:
    """Write a split's set of shards out of those of another writer; they stay as they are.

    Of a sample's JSON the names ``id``, ``source``, ``labels``, ``label`` and ``group`` are used,
    as those of a line of the manifest, and all others kept; the text is the caption. A sample
    without an id is named by its key, one without a group is its own. A meme that another split's
    shards hold is left out, and reported: import splits one after another, and train first.

    Args:
        store: Where both are.
        layout: Names of objects.
        split: Which split.
        keys: Of the other writer's shards, in order.
        taxonomy: Labels that are known.
        options: How.
        say: Told how far it is.

    Raises:
        DamagedShard: One of them is no whole tar.
        FileNotFoundError: One of them is not there.
        ShardsDamaged: Another split's shards can't be read.
        ObjectChanged, BadIndex: See `publish`.
    """
    options = options or ShardOptions()

    def made(found: tuple[str, Sample | BadSample | RowProblem]) -> Made:
        shard, sample = found
        if isinstance(sample, RowProblem):
            return Made(None, problems=[sample])
        where = f"{shard}, sample {sample.key}"
        if isinstance(sample, BadSample):
            return _left_out("bad_sample", where, sample.why)
        line = {name: sample.json[name] for name in _FIELDS if name in sample.json}
        line = {"id": sample.key, **line, "image": _PLACE, "caption": sample.txt}
        rows, problems = read_rows(json.dumps(line).encode(), None, taxonomy)
        told = [replace(problem, where=where) for problem in problems]
        if not rows:
            return Made(None, problems=told)
        row = replace(rows[0], image=f"{shard}#{sample.key}")
        group = sample.json.get("group")
        group = group if isinstance(group, str) else row.id
        done = _made(row, sample.png, group, where, options.limits, sample.json)
        return replace(done, problems=[*told, *done.problems])

    def make() -> Generator[Made, None, None]:
        progress = Progress(f"{split} shards of another writer", len(keys), say)
        samples = _of_shards(store, keys, progress)
        done = ordered_map(made, samples, workers=options.workers, ahead=2 * options.workers)
        with closing(done):
            yield from _without_repeats(_of_no_other(done, _other_splits(store, layout, split)))

    return publish(store, layout, split, make, taxonomy, options, say)


def _of_split(
    rows: Sequence[MemeRow], splits: MemeSplits, split: Split
) -> tuple[list[MemeRow], list[RowProblem]]:
    """The split's rows in the order of the shards, and those that the splits don't cover."""
    ids = {row.id for row in rows}
    if len(ids) < len(rows) or len({row.key for row in rows}) < len(rows):
        msg = f"{len(rows)} rows must have different ids and keys: found {len(ids)} ids"
        raise ValueError(msg)
    problems = [
        RowProblem("no_split", f"id {row.id}", "materialise memes/splits again")
        for row in rows
        if row.id not in splits.split_of
    ]
    problems += [
        RowProblem("no_row", f"id {meme_id}", "the manifest has no such row (any more)")
        for meme_id in splits.ids(split)
        if meme_id not in ids
    ]

    def drawn(row: MemeRow) -> bytes:
        return hashlib.sha256(f"{splits.seed}:{row.id}".encode()).digest()

    chosen = sorted((row for row in rows if splits.split_of.get(row.id) == split), key=drawn)
    return chosen, sorted(problems, key=lambda problem: (problem.kind, problem.where))


def _faults(
    rows: Sequence[MemeRow], sizes: Mapping[str, int], layout: MemeLayout, limits: ImageLimits
) -> dict[str, Made]:
    """Id -> what becomes of a row whose image is not to be read."""
    faults: dict[str, Made] = {}
    for row in rows:
        size = sizes.get(row.image, 0)
        try:
            layout.image(row.image)
        except OutsideStore:
            detail = "it must be a plain path in the store"
            faults[row.id] = _left_out("bad_image_path", _where(row), detail)
        if size > limits.file_bytes:
            detail = f"it has {size} bytes, of {limits.file_bytes} at most"
            faults[row.id] = _left_out(IMAGE_TOO_LARGE, _where(row), detail)
    return faults


def _where(row: MemeRow) -> str:
    return f"image {row.image}, id {row.id}"


def _made(
    row: MemeRow,
    data: bytes,
    group: str,
    where: str,
    limits: ImageLimits,
    more: Mapping[str, Any] | None = None,
) -> Made:
    """A row's sample out of the file of its image."""
    try:
        image = rgb_png(data, limits)
    except BadImage as error:
        return _left_out(IMAGE_CORRUPT, where, str(error))
    fields = {
        **(more or {}),
        "id": row.id,
        "labels": dict(row.labels),
        "group": group,
        "source": row.source,
        "caption": row.caption,
        "ocr": row.ocr,
        "image": row.image,
        "width": image.width,
        "height": image.height,
    }
    sample = Sample(row.key, row.text, image.data, fields)
    try:
        stored_bytes(sample)
    except ValueError as error:
        return _left_out("unstorable", where, str(error))
    return Made(sample, image.changes)


def _left_out(kind: str, where: str, detail: str) -> Made:
    return Made(None, problems=[RowProblem(kind, where, detail)])


def _of_shards(
    store: ObjectStore, keys: Sequence[str], progress: Progress
) -> Iterator[tuple[str, Sample | BadSample | RowProblem]]:
    for key in keys:
        for found in read_shard(BytesIO(store.get(key)), key):
            yield key, found
        progress.step()


def _other_splits(store: ObjectStore, layout: MemeLayout, split: Split) -> dict[str, Split]:
    """Id -> which other split's shards hold it."""
    held: dict[str, Split] = {}
    for other in SPLITS:
        if other != split:
            with suppress(NoShards):
                samples = iter_samples(store, layout, other, on_bad=refuse_bad_sample)
                held.update((sample.json["id"], other) for sample in samples)
    return held


def _of_no_other(done: Iterator[Made], held: Mapping[str, Split]) -> Iterator[Made]:
    """The samples that no other split has."""
    for made in done:
        fields = made.sample.json if made.sample is not None else {}
        if (other := held.get(fields.get("id", ""))) is None:
            yield made
            continue
        told = f"the shards of {other} hold id {fields['id']}"
        problem = RowProblem("in_other_split", f"image {fields['image']}", told)
        yield Made(None, problems=[*made.problems, problem])


def _without_repeats(done: Iterator[Made]) -> Iterator[Made]:
    """The first of the samples that have one key."""
    keys: set[str] = set()
    for made in done:
        if made.sample is None or made.sample.key not in keys:
            yield made
            if made.sample is not None:
                keys.add(made.sample.key)
            continue
        where = f"image {made.sample.json['image']}"
        told = RowProblem("duplicate_sample", where, f"its key is {made.sample.key}, as another's")
        yield Made(None, problems=[*made.problems, told])
