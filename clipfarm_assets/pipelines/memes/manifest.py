"""What a person put there: the rows, the words read off the images, and the images."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts.label_taxonomy import DEFAULT_TAXONOMY, LabelTaxonomy
from clipfarm_assets.contracts.meme_rows import MemeRow, RowProblem, read_rows
from clipfarm_assets.pipelines.problems import ProblemCounts
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore

IMAGE_NOT_FOUND: Final = "image_not_found"


class NoMemes(FileNotFoundError):  # noqa: N818 - a state of the store
    """The store has no manifest where it is looked for."""


class NoMemeRows(ValueError):  # noqa: N818
    """No line of the manifest is a row."""


@dataclass(frozen=True)
class Memes:
    """The rows there are.

    Attributes:
        rows: In the manifest's order, with different ids and keys.
        problems: What is wrong with lines, of both files.
        taxonomy: The labels that rows may have.
        ocr_found: Whether there is a file of OCR.
        version: Hash of all this was read from: both files and the taxonomy.
    """

    rows: Sequence[MemeRow]
    problems: Sequence[RowProblem]
    taxonomy: LabelTaxonomy
    ocr_found: bool
    version: str


@dataclass(frozen=True)
class ManifestReport:
    """What there is, as the asset shows it.

    Attributes:
        rows: Memes.
        images: Objects in the folder of images; the two files, where they lie there, not counted.
        image_bytes: Their sizes together.
        unused_images: Those that no row names.
        with_ocr: Rows that have words read off their image.
        labels: Label -> name of the class -> rows.
        unlabelled: Label -> rows without it.
        sources: Source -> rows; ``(none)`` where a row names none.
        problems: With lines of both files, and images that rows name and that are not there.
        left_out: Lines of the manifest that are no row.
        data_version: Equal for equal files and equally named and sized images.
    """

    rows: int
    images: int
    image_bytes: int
    unused_images: int
    with_ocr: int
    labels: Mapping[str, Mapping[str, int]]
    unlabelled: Mapping[str, int]
    sources: Mapping[str, int]
    problems: ProblemCounts
    left_out: int
    data_version: str

    def shares(self, label: str) -> dict[str, float]:
        """Name of the class -> its share among the rows that have the label."""
        counts = self.labels[label]
        total = sum(counts.values())
        return {name: n / total if total else 0.0 for name, n in counts.items()}


def read_memes(store: ObjectStore, layout: MemeLayout) -> Memes:
    """Read the manifest, the OCR and the taxonomy, where these two are there.

    Raises:
        NoMemes: There is no manifest; says where it was looked for.
        NoMemeRows: None of its lines is a row; says why.
        BadTaxonomy: The taxonomy is none.
    """
    key = layout.manifest()
    manifest = _get(store, key)
    if manifest is None:
        first = next(iter(store.list(f"{layout.prefix}/")), None)
        there = f"but other objects, such as {first.key}" if first else "and holds nothing of ours"
        msg = (
            f"the store {store.url} must hold the manifest of memes at {key}: it does not, "
            f"{there}; put the JSON lines there, or set the layout's keys to where they are"
        )
        raise NoMemes(msg)
    ocr, taxonomy_file = _get(store, layout.ocr()), _get(store, layout.taxonomy_source())
    taxonomy = (
        DEFAULT_TAXONOMY
        if taxonomy_file is None
        else LabelTaxonomy.from_json(taxonomy_file, layout.taxonomy_source())
    )
    rows, problems = read_rows(manifest, ocr, taxonomy)
    if not rows:
        found = ProblemCounts.of(problems)
        reasons = "; ".join(f"{kind} {some[0]}" for kind, some in found.samples.items())
        msg = (
            f"{key} must have one JSON object a line, with id and image: none of its lines is a "
            f"row ({reasons or 'it is empty'})"
        )
        raise NoMemeRows(msg)
    version = hashlib.sha256()
    for part in (manifest, ocr, taxonomy.to_json()):
        version.update(b"-" if part is None else hashlib.sha256(part).digest())
    return Memes(rows, problems, taxonomy, ocr is not None, version.hexdigest())


def list_images(store: ObjectStore, layout: MemeLayout) -> dict[str, int]:
    """Path of every object below the folder of images, as rows name it -> its size in bytes."""
    folder = layout.images()
    others = {layout.manifest(), layout.ocr(), layout.taxonomy_source()}
    return {
        info.key.removeprefix(folder): info.size
        for info in store.list(folder)
        if info.key not in others
    }


def observe(store: ObjectStore, layout: MemeLayout) -> ManifestReport:
    """Look at what is there: reads both files, and lists the images without reading one.

    An image that is replaced by another one of exactly its size isn't noticed.

    Raises:
        NoMemes, NoMemeRows, BadTaxonomy: As `read_memes`.
    """
    memes, images = read_memes(store, layout), list_images(store, layout)
    named = {row.image for row in memes.rows}
    missing = [
        RowProblem(IMAGE_NOT_FOUND, f"id {row.id}", f"no object {layout.image(row.image)}")
        for row in memes.rows
        if row.image not in images
    ]
    labels = {label: dict.fromkeys(names, 0) for label, names in memes.taxonomy.labels.items()}
    for row in memes.rows:
        for label, number in row.labels.items():
            labels[label][memes.taxonomy.labels[label][number]] += 1
    version = hashlib.sha256(memes.version.encode())
    for path, size in sorted(images.items()):
        version.update(f"{path}\n{size}\n".encode())
    return ManifestReport(
        rows=len(memes.rows),
        images=len(images),
        image_bytes=sum(images.values()),
        unused_images=len(images.keys() - named),
        with_ocr=sum(bool(row.ocr) for row in memes.rows),
        labels=labels,
        unlabelled={name: len(memes.rows) - sum(found.values()) for name, found in labels.items()},
        sources=dict(sorted(Counter(row.source or "(none)" for row in memes.rows).items())),
        problems=ProblemCounts.of([*memes.problems, *missing]),
        left_out=sum(problem.leaves_out for problem in memes.problems),
        data_version=version.hexdigest(),
    )


def _get(store: ObjectStore, key: str) -> bytes | None:
    try:
        return store.get(key)
    except FileNotFoundError:
        return None
