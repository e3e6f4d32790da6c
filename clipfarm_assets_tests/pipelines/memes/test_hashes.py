"""Every image is hashed once, and one bad image is one bad image."""

import hashlib
from collections import Counter

import imagehash
import pyarrow as pa
import pytest
from PIL import Image

from clipfarm_assets.pipelines.memes import hashes
from clipfarm_assets.pipelines.memes.hashes import SCHEMA, hash_images, perceptual_hash
from clipfarm_assets.pipelines.memes.manifest import list_images
from clipfarm_assets.storage.images import ImageLimits
from clipfarm_assets.storage.tables import parquet_to_table, table_to_parquet
from clipfarm_assets_tests.pipelines.memes.raw_kit import (
    LAYOUT,
    counting_store,
    file_of,
    picture,
    put_images,
)


@pytest.fixture
def store(tmp_path):
    return counting_store(tmp_path)


CORRUPT = file_of(picture(0))[:-40]


def hashed(store, images=None, **options):
    sizes = list_images(store, LAYOUT)
    return hash_images(store, LAYOUT, sizes if images is None else images, sizes, **options)


@pytest.mark.parametrize("seed", range(5))
def test_the_hash_is_imagehashs(seed):
    image = picture(seed, (200, 120))
    assert perceptual_hash(image) == int(str(imagehash.phash(image)), 16)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {"quality": 60}), ("WEBP", {"quality": 60}), ("BMP", {})]
)
def test_copies_of_an_image_are_near_and_others_are_not(store, kind, options):
    image = picture(1, (300, 200))
    copy = image.resize((180, 120))
    put_images(store, {"a.png": file_of(image), "b": file_of(copy, kind, **options), "c.png": 2})
    found = hashed(store).values()
    assert (found["a.png"] ^ found["b"]).bit_count() <= 4
    assert (found["a.png"] ^ found["c.png"]).bit_count() > 12


def test_an_image_without_a_hash_says_why(store, monkeypatch):
    put_images(
        store,
        {
            "good.png": 1,
            "cut.png": CORRUPT,
            "empty.png": b"",
            "text.png": b"no image",
            "program.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n",
            "white.png": file_of(Image.new("RGB", (40, 40), "white")),
            "grey.png": file_of(Image.new("L", (40, 40), 99)),
        },
    )
    found = hashed(store, [*list_images(store, LAYOUT), "gone.png"])
    assert {image: known.problem for image, known in found.by_image.items()} == {
        "good.png": None,
        "cut.png": "image_corrupt",
        "empty.png": "image_corrupt",
        "text.png": "image_corrupt",
        "program.eps": "image_corrupt",
        "white.png": "image_flat",
        "grey.png": "image_flat",
        "gone.png": "image_not_found",
    }
    assert [image for image, value in found.values().items() if value is not None] == ["good.png"]
    problems = found.problems(LAYOUT)
    assert len(problems) == 7
    assert all(problem.detail for problem in problems)
    assert problems[0].where == LAYOUT.image("cut.png")


def test_a_file_too_large_is_not_read(store):
    put_images(store, {"a.png": 1})
    sizes = {"a.png": 10**12}
    store.reset()
    found = hash_images(store, LAYOUT, sizes, sizes)
    assert found.by_image["a.png"].problem == "image_too_large"
    assert store.count("get", LAYOUT.images()) == 0


def test_what_may_be_packed_has_a_hash_and_other_limits_make_all_again(store):
    put_images(store, {"a.png": 1, "b.png": file_of(picture(2, (90, 80)))})
    tight = ImageLimits(pixels=64 * 48)
    assert hashed(store, limits=tight).by_image["b.png"].problem == "image_corrupt"
    said = []
    wide = hashed(store, limits=ImageLimits(pixels=90 * 80), say=said.append)
    assert (wide.read, wide.known) == (2, 0)
    assert wide.values()["b.png"] == perceptual_hash(picture(2, (90, 80)))
    assert "made again" in said[0]
    assert hashed(store, limits=ImageLimits(pixels=90 * 80)).known == 2
    heavy = ImageLimits(file_bytes=100)
    assert {h.problem for h in hashed(store, limits=heavy).by_image.values()} == {"image_too_large"}


def test_a_second_run_reads_nothing_and_writes_nothing(store):
    put_images(store, {**{f"{k}.png": k for k in range(9)}, "cut.png": CORRUPT})
    first = hashed(store)
    assert (first.read, first.known) == (10, 0)
    record = store.get(LAYOUT.image_hashes())
    store.reset()
    again = hashed(store, [*list_images(store, LAYOUT), "gone.png"])
    assert (again.read, again.known) == (0, 10)
    assert again.by_image.items() >= first.by_image.items()
    assert store.count("get", LAYOUT.images()) == store.count("put") == 0
    assert store.get(LAYOUT.image_hashes()) == record


def test_what_is_new_or_of_another_size_is_read(store):
    put_images(store, {"a.png": 1, "b.png": 2})
    before = hashed(store)
    put_images(store, {"b.png": file_of(picture(3, (80, 80))), "c.png": 4})
    store.reset()
    after = hashed(store)
    assert (after.read, after.known) == (2, 1)
    assert {key for kind, key in store.calls if kind == "get"} == {
        LAYOUT.image_hashes(), LAYOUT.image("b.png"), LAYOUT.image("c.png"),
    }  # fmt: skip
    assert after.values()["b.png"] == perceptual_hash(picture(3, (80, 80)))
    assert after.by_image["a.png"] == before.by_image["a.png"]


def test_the_record_is_a_function_of_the_images(store, tmp_path):
    put_images(store, {f"{k}.png": k for k in range(6)})
    hashed(store, ["0.png", "3.png"])
    hashed(store, workers=1)
    grown = store.get(LAYOUT.image_hashes())
    store.delete(LAYOUT.image_hashes())
    hashed(store, workers=3)
    assert store.get(LAYOUT.image_hashes()) == grown
    table = parquet_to_table(grown, SCHEMA)
    data = store.get(LAYOUT.image("3.png"))
    assert table.to_pylist()[3] == {
        "image": "3.png", "size": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "phash": perceptual_hash(picture(3)), "problem": None, "detail": None,
    }  # fmt: skip


def test_a_run_that_is_stopped_keeps_what_it_saved(store, monkeypatch):
    monkeypatch.setattr(hashes, "_SAVED_EVERY", 4)
    put_images(store, {f"{k}.png": k for k in range(10)})
    plain, calls = hashes.perceptual_hash, Counter()

    def stops(image):
        calls["hashed"] += 1
        if calls["hashed"] == 8:
            raise KeyboardInterrupt
        return plain(image)

    monkeypatch.setattr(hashes, "perceptual_hash", stops)
    with pytest.raises(KeyboardInterrupt):
        hashed(store, workers=1)
    monkeypatch.setattr(hashes, "perceptual_hash", plain)
    again = hashed(store)
    assert (again.read, again.known) == (6, 4)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b"PAR1 no table PAR1", "is not readable"),
        (table_to_parquet(pa.table({"image": ["0.png"]})), "is not readable"),
        (
            table_to_parquet(SCHEMA.empty_table(), {"clipfarm.image_hash": "phash64.v0"}),
            "made again",
        ),
    ],
)
def test_a_record_that_is_of_no_use_is_said_and_made_again(store, record, told):
    put_images(store, {f"{k}.png": k for k in range(3)})
    expected = hashed(store)
    good = store.get(LAYOUT.image_hashes())
    store.put(LAYOUT.image_hashes(), record)
    said = []
    again = hashed(store, say=said.append)
    assert again.by_image == expected.by_image
    assert again.read == 3
    assert told in said[0]
    assert store.get(LAYOUT.image_hashes()) == good


def test_few_images_are_held_at_a_time(store, monkeypatch):
    workers, held, most = 2, 0, 0
    put_images(store, {f"{k:03}.png": k for k in range(60)})
    plain = store.get_many

    def fetched(keys, used):
        assert used == workers

        def taken():
            nonlocal held, most
            for key in keys:
                held += 1
                most = max(most, held)
                yield key

        return plain(taken(), used)

    plain_step = hashes.Progress.step

    def stepped(self):
        nonlocal held
        held -= 1
        plain_step(self)

    monkeypatch.setattr(store, "get_many", fetched)
    monkeypatch.setattr(hashes.Progress, "step", stepped)
    hashed(store, workers=workers)
    assert held == 0
    assert most <= 4 * workers + 1
