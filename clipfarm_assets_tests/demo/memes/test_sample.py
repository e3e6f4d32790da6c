"""The sample, and that every edge case becomes what it must."""

import hashlib
import json
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from clipfarm_assets.contracts.meme_rows import LEFT_OUT, NOTES, SPLITS
from clipfarm_assets.demo.memes.edge_cases import EDGE_CASES
from clipfarm_assets.demo.memes.findings import look_up
from clipfarm_assets.demo.memes.sample import image_of, make_memes
from clipfarm_assets.demo.memes.summary import FIRST_ID
from clipfarm_assets.pipelines.memes import hashes
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.demo.memes.kit import ROWS, pack


@pytest.fixture(scope="module")
def outcomes(packed):
    return look_up(packed.store, packed.layout, FIRST_ID)


@pytest.mark.parametrize("case", EDGE_CASES, ids=lambda case: case.name)
def test_a_case_becomes_what_it_must(outcomes, case):
    assert outcomes.differs(case) == ""


def test_nothing_is_dropped_in_silence(outcomes, packed):
    assert outcomes.as_expected
    assert outcomes.lines == packed.sample.lines
    assert outcomes.unaccounted == 0
    assert outcomes.samples < outcomes.rows < outcomes.lines


def test_a_sample_that_vanished_from_its_shard_is_seen(packed, tmp_path):
    layout = MemeLayout()
    store = ObjectStore.open(str(tmp_path))
    make_memes(store, layout, "xor", ROWS, edge_cases=True)
    pack(store, layout)
    lines = store.get(layout.manifest()).splitlines()
    more = {**json.loads(lines[-1]), "id": "added-later", "image": "of/nobody.png"}
    store.put(layout.manifest(), b"\n".join([*lines, json.dumps(more).encode()]))
    found = look_up(store, layout, FIRST_ID)
    assert found.unaccounted == 1
    assert not found.as_expected


def test_another_outcome_than_expected_is_told(outcomes):
    case = next(case for case in EDGE_CASES if case.name == "flat")
    wrong = replace(case, expected=replace(case.expected, in_shards=False))
    assert outcomes.differs(wrong) == "in shards: expected False, found True"


def test_names_and_ids_are_unique_and_problems_are_words_of_the_contract():
    names = [case.name for case in EDGE_CASES]
    ids = [case.meme_id for case in EDGE_CASES if case.meme_id]
    assert len(set(names)) == len(names)
    assert len(set(ids)) == len(ids)
    partly = {"unknown_label", "bad_label", "ocr_without_row"}
    of_images = {getattr(hashes, name) for name in dir(hashes) if name.startswith("IMAGE_")}
    words = LEFT_OUT | NOTES | partly | of_images
    for case in EDGE_CASES:
        assert case.expected.problems <= words, case.name


def test_the_same_arguments_give_the_same_bytes_under_any_layout(tmp_path):
    found = []
    for prefix in ("memes", "elsewhere/of/them"):
        store = ObjectStore.open(str(tmp_path / prefix.replace("/", "-")))
        sample = make_memes(store, MemeLayout(prefix=prefix), "xor", 24, edge_cases=True)
        objects = {
            info.key.removeprefix(f"{prefix}/"): store.get(info.key) for info in store.list("")
        }
        assert sample.bytes == sum(map(len, objects.values()))
        assert sample.images == len(objects) - 2
        found.append({k: hashlib.sha256(data).hexdigest() for k, data in objects.items()})
    assert found[0] == found[1]


def test_pictures_are_real_files_of_both_kinds(packed):
    kinds = set()
    for info in packed.store.list(packed.layout.images()):
        if "/edge/" not in info.key:
            with Image.open(BytesIO(packed.store.get(info.key))) as image:
                image.load()
                kinds.add((image.format, image.size))
    assert kinds == {("PNG", (96, 96)), ("JPEG", (96, 96))}


def test_without_edge_cases_every_line_is_a_sample(tmp_path):
    store, layout = ObjectStore.open(str(tmp_path)), MemeLayout()
    sample = make_memes(store, layout, "noise", 30)
    pack(store, layout)
    rows = [json.loads(store.get(layout.shard_index(split)))["rows"] for split in SPLITS]
    assert sum(rows) == sample.lines == 30
    assert sample.edge_cases == ()


def test_a_cases_picture_tells_the_case():
    assert len({image_of(case) for case in EDGE_CASES}) == len(EDGE_CASES)
