import pytest

from clipfarm_assets_tests.pipelines.assemble.kit import Bench


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Only read."""
    bench = Bench(tmp_path_factory.mktemp("made"), write_embeddings=True)
    yield bench
    bench.ledger.close()


@pytest.fixture
def make(tmp_path):
    opened = []

    def make_one(**options):
        opened.append(Bench(tmp_path / str(len(opened)), **options))
        return opened[-1]

    yield make_one
    for bench in opened:
        bench.ledger.close()


@pytest.fixture
def bench(make):
    return make(strategies=["concat"])


@pytest.fixture
def pooled(make):
    """Without concat, so that modality vectors are read from objects."""
    return make(strategies=["sum_pool"], write_embeddings=True)
