"""How large the demo's sets are, as its variable says."""

import pytest

from clipfarm_assets.demo.memes.plan import FEWEST
from clipfarm_assets.demo.memes.run import ROWS_VARIABLE, rows_told


@pytest.mark.parametrize(("told", "expected"), [(None, None), ("", None), ("12", 12), ("99", 99)])
def test_the_variable_sets_it(monkeypatch, told, expected):
    monkeypatch.delenv(ROWS_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(ROWS_VARIABLE, told)
    assert rows_told() == expected


@pytest.mark.parametrize("told", ["many", "-5", "1.5", "0", str(FEWEST - 1)])
def test_a_size_that_cannot_be_is_one_sentence(monkeypatch, told):
    monkeypatch.setenv(ROWS_VARIABLE, told)
    with pytest.raises(SystemExit, match=f"{FEWEST} or more, e.g. .*: found '{told}'"):
        rows_told()
