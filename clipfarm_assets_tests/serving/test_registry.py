"""A registry is read as it was written, or refused and kept."""

import json
from dataclasses import replace

import pytest

from clipfarm_assets.serving.promotion import promote
from clipfarm_assets.serving.registry import BadRegistry, Registry, load_registry
from clipfarm_assets_tests.serving.kit import LAYOUT, REGISTRY_KEY


def promoted(filled):
    promote(filled, LAYOUT, 7, run_id="r1")
    return json.loads(filled.get(REGISTRY_KEY))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"horizon": 30},
        {"current": "h7-v2"},
        {"current": None},
        {"versions": None},
        {"versions": [{}]},
        {"versions": []},
    ],
)
def test_a_registry_that_contradicts_itself_is_refused_and_kept(filled, change):
    body = promoted(filled) | change
    data = json.dumps(body).encode()
    filled.put(REGISTRY_KEY, data)
    with pytest.raises(BadRegistry, match=r"registry.json is no model registry.*backup"):
        load_registry(filled, LAYOUT, 7)
    with pytest.raises(BadRegistry):
        promote(filled, LAYOUT, 7, run_id="r1")
    assert filled.get(REGISTRY_KEY) == data


@pytest.mark.parametrize(
    "change",
    [
        {"model_version": "h7-v2"},
        {"horizon_days": 30},
        {"artifacts": ["models/ridge.skops"]},
        {"fusion_strategy": "mean"},
        {"metrics": {"val": {"rmse_log": "low"}}},
    ],
)
def test_a_version_with_wrong_fields_is_refused(filled, change):
    body = promoted(filled)
    body["versions"][0] |= change
    filled.put(REGISTRY_KEY, json.dumps(body).encode())
    with pytest.raises(BadRegistry):
        load_registry(filled, LAYOUT, 7)


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_registry_is_refused(folder, data):
    folder.put(REGISTRY_KEY, data)
    with pytest.raises(BadRegistry):
        load_registry(folder, LAYOUT, 7)


def test_a_registry_comes_back_as_it_was_written(filled):
    promote(filled, LAYOUT, 7, run_id="r1")
    promote(filled, LAYOUT, 7, run_id="r1", family="gbdt")
    registry = load_registry(filled, LAYOUT, 7)
    assert registry.to_json() == filled.get(REGISTRY_KEY)
    older = replace(registry, current="h7-v1")
    assert Registry.from_json(older.to_json(), 7, REGISTRY_KEY) == older
