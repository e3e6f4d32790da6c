"""The perceptual hash of every image, each computed once.

What was found is kept in one parquet object, by image, with the limits it was found under. Nobody
reads an image again that has the size it had: images are taken not to change in place, as their
names say what they are.
"""

import hashlib
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from PIL import Image

from clipfarm_assets.contracts.meme_rows import RowProblem
from clipfarm_assets.pipelines.flow import ordered_map
from clipfarm_assets.pipelines.memes.manifest import IMAGE_NOT_FOUND
from clipfarm_assets.pipelines.progress import Progress, Say, silent
from clipfarm_assets.storage.images import DEFAULT_LIMITS, BadImage, ImageLimits, decode_rgb
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets.storage.tables import BadTable, parquet_to_table, table_to_parquet

IMAGE_CORRUPT: Final = "image_corrupt"
IMAGE_TOO_LARGE: Final = "image_too_large"
IMAGE_FLAT: Final = "image_flat"

_VERSION: Final = "phash64.v1"
"""What is changed with the way hashes are made: those of another one are made anew."""
_VERSION_KEY: Final = "clipfarm.image_hash"

_SIDE: Final = 32
_LEAST_CONTRAST: Final = 8
"""Grey levels between the darkest and the lightest of 32 x 32 parts, from which an image has a
hash. Below, the hash is that of rounding, and all blank images would be one."""

_SAVED_EVERY: Final = 5000

SCHEMA: Final = pa.schema(
    [
        pa.field("image", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.string()),
        pa.field("phash", pa.uint64()),
        pa.field("problem", pa.string()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class HashedImage:
    """What is known of one image.

    Attributes:
        image: Path, as rows name it.
        size: In bytes; -1 if it is not there.
        sha256: Of its bytes; None if it was not read.
        phash: 64 bits; None if it has none.
        problem: Why it has none: one of the words above. None if it has one.
        detail: The same in a sentence.
    """

    image: str
    size: int
    sha256: str | None = None
    phash: int | None = None
    problem: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class ImageHashes:
    """The hashes of some images.

    Attributes:
        by_image: Path -> what is known of it.
        read: Images that were read now.
        known: Images that were known from before.
    """

    by_image: Mapping[str, HashedImage]
    read: int
    known: int

    def values(self) -> dict[str, int | None]:
        """Path -> perceptual hash, or None; as `near_duplicate_groups` takes it."""
        return {image: found.phash for image, found in self.by_image.items()}

    def problems(self, layout: MemeLayout) -> list[RowProblem]:
        """Why images have no hash."""
        return [
            RowProblem(found.problem, layout.image(image), found.detail or "")
            for image, found in sorted(self.by_image.items())
            if found.problem
        ]


def perceptual_hash(image: Image.Image) -> int | None:
    """The 64-bit pHash of an image (ImageHash's ``phash``); None for one that is all but blank.

    The signs of the 8 x 8 lowest frequencies of the cosine transform of its 32 x 32 grey parts,
    against their median.
    """
    import imagehash

    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    if np.ptp(np.asarray(small)) < _LEAST_CONTRAST:
        return None
    return int(str(imagehash.phash(small)), 16)


def hash_images(
    store: ObjectStore,
    layout: MemeLayout,
    images: Iterable[str],
    sizes: Mapping[str, int],
    *,
    limits: ImageLimits = DEFAULT_LIMITS,
    workers: int = 4,
    say: Say = silent,
) -> ImageHashes:
    """Hash images, of which at most ``4 * workers`` are in memory at a time.

    Stopped at any time, it has lost the work on a few thousand images at most.

    Args:
        store: Where they are.
        layout: Where there.
        images: Paths, as rows name them.
        sizes: Path -> size in bytes of every image there is; see `list_images`.
        limits: Of images; those they are packed with, or what is packed has no hash. Hashes on
            record that were made with others are made again.
        workers: Images decoded, and fetched, at a time.
        say: Told how far it is.

    Returns:
        Every one of `images`; those that are not there or can't be decoded with the reason.
    """
    wanted = sorted(set(images))
    made_as = _made_as(limits)
    recorded = _recorded(store, layout, made_as, say)
    found: dict[str, HashedImage] = {}
    to_read: list[str] = []
    for image in wanted:
        size, before = sizes.get(image), recorded.get(image)
        if size is None:
            detail = f"no object {layout.image(image)}"
            found[image] = HashedImage(image, -1, problem=IMAGE_NOT_FOUND, detail=detail)
        elif before and before.size == size:
            found[image] = before
        elif size > limits.file_bytes:
            detail = f"it has {size} bytes, of {limits.file_bytes} at most"
            found[image] = HashedImage(image, size, problem=IMAGE_TOO_LARGE, detail=detail)
        else:
            to_read.append(image)
    known = sum(image in recorded and found[image] is recorded[image] for image in found)
    progress = Progress("image hashes", len(to_read), say)
    keys = (layout.image(image) for image in to_read)
    with (
        closing(store.get_many(keys, workers)) as objects,
        closing(
            ordered_map(
                partial(_hashed, limits=limits),
                zip(to_read, objects, strict=True),
                workers=workers,
                ahead=2 * workers,
            )
        ) as results,
    ):
        for result in results:
            found[result.image] = result
            progress.step()
            if progress.done % _SAVED_EVERY == 0:
                _save(store, layout, made_as, found)
    if _there(found) != recorded:
        _save(store, layout, made_as, found)
    return ImageHashes({image: found[image] for image in wanted}, len(to_read), known)


def _made_as(limits: ImageLimits) -> str:
    told = (f"{name}={value}" for name, value in asdict(limits).items())
    return f"{_VERSION} {' '.join(told)}"


def _hashed(
    item: tuple[str, tuple[str, bytes | FileNotFoundError]], limits: ImageLimits
) -> HashedImage:
    image, (_, data) = item
    if isinstance(data, FileNotFoundError):
        return HashedImage(image, -1, problem=IMAGE_NOT_FOUND, detail=str(data))
    known = HashedImage(image, len(data), hashlib.sha256(data).hexdigest())
    try:
        phash = perceptual_hash(decode_rgb(data, limits)[0])
    except BadImage as error:
        return replace(known, problem=IMAGE_CORRUPT, detail=str(error))
    if phash is None:
        detail = "it is all but blank, which makes it like no other"
        return replace(known, problem=IMAGE_FLAT, detail=detail)
    return replace(known, phash=phash)


def _recorded(
    store: ObjectStore, layout: MemeLayout, made_as: str, say: Say
) -> dict[str, HashedImage]:
    """What is known from before; nothing, if that was made another way or can't be read."""
    key = layout.image_hashes()
    try:
        table = parquet_to_table(store.get(key), SCHEMA)
    except FileNotFoundError:
        return {}
    except BadTable as error:
        say(f"{key} is not readable, so all images are hashed again: {error}")
        return {}
    version = (table.schema.metadata or {}).get(_VERSION_KEY.encode(), b"").decode()
    if version != made_as:
        say(f"{key} has hashes of {version or 'no version'}, all are made again as {made_as}")
        return {}
    return {row["image"]: HashedImage(**row) for row in table.to_pylist()}


def _save(
    store: ObjectStore, layout: MemeLayout, made_as: str, found: Mapping[str, HashedImage]
) -> None:
    """Keep what is known of the images that are there; the same knowledge is the same bytes."""
    rows = [asdict(known) for _, known in sorted(_there(found).items())]
    table = pa.Table.from_pylist(rows, SCHEMA)
    store.put(layout.image_hashes(), table_to_parquet(table, {_VERSION_KEY: made_as}))


def _there(found: Mapping[str, HashedImage]) -> dict[str, HashedImage]:
    return {image: known for image, known in found.items() if known.size >= 0}
