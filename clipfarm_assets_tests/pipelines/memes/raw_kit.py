"""Raw memes in a store: files of JSON lines and images."""

import io
import json

import numpy as np
from PIL import Image

from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets_tests.stores import CountingStore

LAYOUT = MemeLayout()


def picture(seed, size=(64, 48)):
    """An image that is unlike those of other seeds."""
    pixels = np.random.default_rng(seed).integers(256, size=(8, 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def file_of(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def row(meme_id, **fields):
    return {
        "id": meme_id,
        "image": f"{meme_id}.png",
        "caption": f"caption of {meme_id}",
        "label": 0,
        **fields,
    }


def put_rows(store, rows, ocr=None):
    def lines(bodies):
        return "".join(f"{json.dumps(body)}\n" for body in bodies).encode()

    store.put(LAYOUT.manifest(), lines(rows))
    if ocr is not None:
        store.put(LAYOUT.ocr(), lines(ocr))


def put_images(store, images):
    """Path -> bytes, or the seed of a picture."""
    for path, data in images.items():
        put = data if isinstance(data, bytes) else file_of(picture(data))
        store.put(LAYOUT.image(path), put)


def put_memes(store, n, start=0, **fields):
    """Memes that are like no other, every third of the other class; returns the rows."""
    rows = [row(f"m{k:03}", label=int(k % 3 == 0), **fields) for k in range(start, start + n)]
    put_images(store, {f"m{k:03}.png": k for k in range(start, start + n)})
    return rows


def counting_store(tmp_path):
    return CountingStore(str(tmp_path / "store"))
