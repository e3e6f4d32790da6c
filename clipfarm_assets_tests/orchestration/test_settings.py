"""Nested settings: what is wrong is one sentence that names field, choices and value."""

import pytest

from clipfarm_assets.orchestration.settings import BadSettings, validated
from clipfarm_assets.training.config import SuiteConfig


def test_what_is_right_overrides_the_defaults():
    found = validated(SuiteConfig, {"ridge": {"alphas": [1, 2]}, "gbdt": {"fit": {}}}, "h")
    assert found.ridge.alphas == (1.0, 2.0)
    assert found.ridge.block_scales == SuiteConfig().ridge.block_scales
    assert found.gbdt == SuiteConfig().gbdt


def test_a_field_that_is_set_elsewhere_is_not_offered():
    fields = SuiteConfig.model_fields
    for hidden in ((), ("seed", "rank_metric"), tuple(fields)[1:]):
        with pytest.raises(BadSettings) as caught:
            validated(SuiteConfig, {"rigde": {}}, "h", hidden=hidden)
        offered = str(caught.value).partition("expected some of ")[2].partition(":")[0].split(", ")
        assert offered == [name for name in fields if name not in hidden]
    with pytest.raises(BadSettings, match=r"h\.ridge\.alpha is no setting: .*alphas, block_scales"):
        validated(SuiteConfig, {"ridge": {"alpha": 1}}, "h", hidden=["seed"])
    # It's about what is offered: what is set there is the caller's to refuse.
    assert validated(SuiteConfig, {"seed": 3}, "h", hidden=["seed"]).seed == 3


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"rigde": {}}, "h.rigde is no setting: expected some of seed, rank_metric"),
        ({"ridge": {"alpha": 1}}, "h.ridge.alpha is no setting: expected some of alphas, block_"),
        ({"ridge": {"alphas": [1, 0]}}, "h.ridge.alphas.1 must be greater than 0: found 0"),
        ({"gbdt": {"boosting": {"max_iter": 0}}}, "h.gbdt.boosting.max_iter must be greater than"),
        ({"gbdt": {"boosting": {"depth": 3}}}, "h.gbdt.boosting.depth is no setting: expected so"),
        ({"stacked": {"base": ["mean"]}}, "h.stacked.base.0 must be 'ridge', 'gbdt'"),
        ({"ridge": 3}, "h.ridge must be a valid dictionary"),
    ],
)
def test_what_is_wrong_is_one_sentence(values, says):
    with pytest.raises(BadSettings) as caught:
        validated(SuiteConfig, values, "h")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)
