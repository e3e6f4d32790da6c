"""How large the demo's corpus is, as its variable says."""

import pytest

from clipfarm_assets.demo.songs.plan import SONGS
from clipfarm_assets.demo.songs.run import FEWEST, SONGS_VARIABLE, songs_told


@pytest.mark.parametrize(("told", "expected"), [(None, SONGS), ("", SONGS), ("99", 99)])
def test_the_variable_sets_it(monkeypatch, told, expected):
    monkeypatch.delenv(SONGS_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(SONGS_VARIABLE, told)
    assert songs_told() == expected


@pytest.mark.parametrize("told", ["many", "-5", "1.5", str(FEWEST - 1)])
def test_a_size_that_cannot_be_is_one_sentence(monkeypatch, told):
    monkeypatch.setenv(SONGS_VARIABLE, told)
    with pytest.raises(SystemExit, match=f"{FEWEST} or more, e.g. .*: found '{told}'"):
        songs_told()
