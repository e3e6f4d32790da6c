import pytest

from clipfarm_assets.demo.memes.sample import make_memes
from clipfarm_assets.storage.meme_layout import MemeLayout
from clipfarm_assets.storage.objects import ObjectStore
from clipfarm_assets_tests.demo.memes.kit import ROWS, Packed, pack


@pytest.fixture(scope="package")
def packed(tmp_path_factory):
    store = ObjectStore.open(str(tmp_path_factory.mktemp("memes")))
    layout = MemeLayout()
    sample = make_memes(store, layout, "xor", ROWS, edge_cases=True)
    pack(store, layout)
    return Packed(store, layout, sample)
