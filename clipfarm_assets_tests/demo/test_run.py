"""How large the demo's sample is, as its variable says."""

import pytest

from clipfarm_assets.demo.plan import FEWEST_PER_DATE, plan_sample
from clipfarm_assets.demo.run import CLIPS_VARIABLE, clips_per_date


@pytest.mark.parametrize(
    ("told", "expected"), [(None, 100), ("", 100), ("20", 20), ("12", FEWEST_PER_DATE)]
)
def test_the_variable_sets_it(monkeypatch, told, expected):
    monkeypatch.delenv(CLIPS_VARIABLE, raising=False)
    if told is not None:
        monkeypatch.setenv(CLIPS_VARIABLE, told)
    assert clips_per_date() == expected


@pytest.mark.parametrize("told", ["twenty", "-1", "1.5", "0", str(FEWEST_PER_DATE - 1)])
def test_a_size_that_cannot_be_is_one_sentence(monkeypatch, told):
    monkeypatch.setenv(CLIPS_VARIABLE, told)
    with pytest.raises(SystemExit) as refused:
        clips_per_date()
    assert refused.value.code == (
        f"{CLIPS_VARIABLE} must be a number of clips, {FEWEST_PER_DATE} or more: found {told!r}"
    )


def test_the_smallest_size_is_one_that_the_plan_takes():
    assert len(plan_sample(clips_per_date=FEWEST_PER_DATE).clips) == 3 * FEWEST_PER_DATE
    with pytest.raises(ValueError, match=f"must be {FEWEST_PER_DATE} or more"):
        plan_sample(clips_per_date=FEWEST_PER_DATE - 1)
