"""Structural faults end a run with one sentence; mistakes of ours keep their trace."""

import importlib
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.test_utils import freeze_time

from clipfarm_assets.orchestration import partitions
from clipfarm_assets.orchestration.faults import FAULTS, LAZY_FAULTS, one_sentence
from clipfarm_assets.pipelines.inspect import run_settings


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_fault_is_its_sentence_alone(fault):
    with pytest.raises(dg.Failure) as caught, one_sentence():
        raise fault("expected this, found that, do so")
    assert caught.value.description == "expected this, found that, do so"
    assert caught.value.allow_retries is False
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(("module", "name"), sorted(LAZY_FAULTS), ids=lambda part: part)
def test_faults_of_late_rooms_are_known_by_the_names_they_have(module, name):
    fault = getattr(importlib.import_module(module), name)
    with pytest.raises(dg.Failure) as caught, one_sentence():
        raise fault("expected this, found that, do so")
    assert caught.value.description == "expected this, found that, do so"


def test_a_mistake_keeps_its_trace():
    with pytest.raises(KeyError), one_sentence():
        raise KeyError("ours")


def test_a_store_without_csv_says_where_it_looked(bench, instance):
    bench.store.delete(bench.layout.metadata())
    sentence = (
        r"must hold the metadata CSV at clipfarm/metadata/shorts_metadata_horizon\.csv: it does "
        r"not, but other objects, such as clipfarm/raw/.*CLIPFARM_STORE.*CLIPFARM_METADATA_KEY"
    )
    for job, key in (("clips_observe", None), ("clips_daily", "2026-02-05")):
        with pytest.raises(dg.Failure, match=sentence):
            bench.run(instance, job, key)


def test_dates_end_where_they_are_told_to():
    told = {"CLIPFARM_START_DATE": "2026-02-05", "CLIPFARM_END_DATE": "2026-02-07"}
    assert partitions.dates_from(told).get_partition_keys() == [
        "2026-02-05",
        "2026-02-06",
        "2026-02-07",
    ]


class Noon(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz=None):
        return cls(2026, 3, 10, 12, tzinfo=tz)


@pytest.mark.parametrize(
    ("told", "last"),
    [
        ("2026-03-08", "2026-03-08"),
        ("2026-03-09", "2026-03-09"),
        ("2026-03-10", "2026-03-10"),
        ("2026-03-11", "2026-03-10"),
        ("2026-04-09", "2026-03-10"),
        ("", "2026-03-10"),
    ],
)
def test_the_last_date_is_today_until_the_end_is_past(monkeypatch, told, last):
    """To Dagster as to ``clipfarm plan``."""
    environ = {"CLIPFARM_START_DATE": "2026-03-07", "CLIPFARM_END_DATE": told}
    definition = partitions.dates_from(environ)
    monkeypatch.setattr(run_settings, "datetime", Noon)
    with freeze_time(Noon.now(UTC)):
        keys = definition.get_partition_keys()
        assert (keys[0], keys[-1]) == ("2026-03-07", last)
        assert definition.get_last_partition_key() == last
        assert run_settings.run_settings(environ).last_date == last
    with freeze_time(Noon.now(UTC) + timedelta(days=365)):
        now = definition.get_last_partition_key()  # though nobody loaded the definitions again
        assert now == (told or "2027-03-10")


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"CLIPFARM_START_DATE": "5.2.2026"}, "CLIPFARM_START_DATE must be a date as YYYY-MM-DD"),
        ({"CLIPFARM_END_DATE": "2026-02-31"}, "CLIPFARM_END_DATE must be a date as YYYY-MM-DD"),
        ({"CLIPFARM_END_DATE": "2020-01-01"}, "must not be before CLIPFARM_START_DATE 2026-01-01"),
    ],
)
def test_wrong_dates_are_named(told, sentence):
    with pytest.raises(ValueError, match=sentence):
        partitions.dates_from(told)


def test_clips_after_the_last_partition_are_counted(bench, instance):
    bench.add_clips(("now", "2026-02-05"), ("future", "2999-01-01"))
    bench.run(instance, "clips_daily", "2026-02-05")
    record = instance.fetch_materializations(dg.AssetKey(["clips", "clip_index"]), 1).records[0]
    metadata = record.asset_materialization.metadata
    assert metadata["skipped/after_last_partition"].value == 1
    assert [r.data["video_id"] for r in metadata["skipped_rows"].records] == ["future"]
