"""The pipeline with its ledger on PostgreSQL, against the same on SQLite."""

from dataclasses import replace

import pytest

from clipfarm_assets.contracts import statuses
from clipfarm_assets_tests.defs import kit
from clipfarm_assets_tests.e2e import benches
from clipfarm_assets_tests.servers import postgres_url

pytestmark = pytest.mark.postgres

PASSWORD = "correct-horse-battery"
STAGES = [
    *(statuses.embedding_stage(modality) for modality in statuses.MODALITIES),
    *(statuses.fusion_stage(strategy) for strategy in statuses.STRATEGIES),
]


@pytest.fixture
def on_postgres(tmp_path, monkeypatch):
    # The server trusts everyone, and so takes any password.
    url = postgres_url().replace("clipfarm@", f"clipfarm:{PASSWORD}@")
    environ = {
        "CLIPFARM_STORE": str(tmp_path / "postgres" / "store"),
        "CLIPFARM_HOME": str(tmp_path / "postgres-home"),
        "CLIPFARM_LEDGER": url,
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return benches.EnvironBench(tmp_path / "postgres", environ=environ)


def rows(bench):
    """Everything the ledger holds but when it was written."""
    with bench.resource().open() as opened:
        return {
            stage: {
                video_id: replace(item, processed_at="")
                for video_id, item in opened.ledger.rows(stage).items()
            }
            for stage in STAGES
        }


def test_the_ledger_on_postgres_equals_sqlite(tmp_path, on_postgres):
    on_sqlite = kit.Bench(tmp_path / "sqlite")
    benches.all_of_it(on_sqlite)
    told = benches.all_of_it(on_postgres)
    found = rows(on_postgres)
    assert found == rows(on_sqlite)
    assert sum(len(of_stage) for of_stage in found.values()) == len(STAGES) * len(benches.CLIPS)
    assert benches.objects(on_postgres) == benches.objects(on_sqlite)
    assert not (tmp_path / "postgres-home" / "ledger.sqlite").exists()

    settings = benches.shown(on_postgres)
    assert on_postgres.environ["CLIPFARM_STORE"] in settings, "the search must have a haystack"
    assert benches.hides(PASSWORD, told + settings)
