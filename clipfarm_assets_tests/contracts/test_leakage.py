from dataclasses import replace

import pytest

from clipfarm_assets.contracts import leakage
from clipfarm_assets.contracts.features import FEATURE_SETS, Column, FeatureContract
from clipfarm_assets.contracts.horizon_csv import COLUMNS
from clipfarm_assets.contracts.leakage import (
    AVAILABILITY,
    DERIVED,
    HARD_LEAKAGE,
    HIGH_CARDINALITY,
    LOW_CARDINALITY,
    OUTCOMES,
    BadDeclaration,
    FeatureLeakage,
    UndeclaredColumn,
    assert_no_feature_leakage,
    contract_findings,
    feature_contract,
    source_columns,
)

AT_PUBLISH = (
    "channel_description_length", "title_length", "description_length", "emoji_count",
    "has_hashtags", "has_shorts_hashtag", "has_clickbait_words", "hashtag_count",
    "duration_seconds", "caption_available", "licensed_content", "thumb_width", "thumb_height",
    "thumb_aspect_ratio", "is_vertical_thumb", "shorts_by_duration", "shorts_by_hashtag",
    "is_short", "embeddable", "madeForKids",
)  # fmt: skip
CAPTURED = {
    "channel_subscriber_count", "channel_video_count", "channel_view_count", "channel_age_days",
    "channel_hidden_subscriber_count", "publicStatsViewable", "likes_hidden", "comments_disabled",
    "stats_hidden", "channel_median_shorts_view_count",
}  # fmt: skip
CATEGORIES = ("query", "channel_country", "default_language", "default_audio_language")


def test_every_column_of_the_csv_is_declared_and_no_other():
    assert tuple(AVAILABILITY) == COLUMNS
    assert len(COLUMNS) == 70


def test_what_the_contract_calls_leaky_is_declared_so():
    # The training contract, section 4.2, written out.
    assert {
        "horizon_view_count", "horizon_days", "horizon_label_type", "view_count", "like_count",
        "comment_count", "views_per_day", "age_days", "virality_score",
    } <= HARD_LEAKAGE  # fmt: skip
    rates = {name for name in COLUMNS if "_per_" in name}
    assert len(rates) == 6
    assert rates <= HARD_LEAKAGE
    assert set(OUTCOMES) == HARD_LEAKAGE | {"too_new_for_rates"}
    assert all(AVAILABILITY[name].availability == "after_outcome" for name in OUTCOMES)


def test_derived_features_are_made_of_what_is_known_at_publication():
    for name, derived in DERIVED.items():
        assert name not in COLUMNS
        for source in derived.sources:
            assert AVAILABILITY[source] == Column("at_publish", "time")


def test_v2_is_what_is_known_at_publication():
    contract = feature_contract(COLUMNS)
    assert contract.feature_set == "v2"
    derived = ("published_hour", "published_dayofweek", "channel_age_at_publish_days")
    assert contract.numeric == AT_PUBLISH + derived
    assert contract.categorical == CATEGORIES


def test_v1_has_the_columns_captured_at_the_horizon_as_well():
    contract = feature_contract(COLUMNS, "v1")
    assert set(contract.numeric) == {
        *AT_PUBLISH, *CAPTURED, "published_hour", "published_dayofweek",
    }  # fmt: skip
    assert contract.numeric[:-2] == tuple(c for c in COLUMNS if c in contract.numeric)
    assert contract.numeric[-2:] == ("published_hour", "published_dayofweek")
    assert contract.categorical == CATEGORIES


@pytest.mark.parametrize("feature_set", FEATURE_SETS)
def test_every_column_is_a_feature_or_dropped_with_a_reason(feature_set):
    contract = feature_contract(COLUMNS, feature_set)
    from_csv = set(contract.features) - set(DERIVED)
    assert from_csv | set(contract.dropped) == set(COLUMNS)
    assert not from_csv & set(contract.dropped)
    assert all(reason and "\n" not in reason for reason in contract.dropped.values())
    assert contract.dropped["view_count"] == "known only after the outcome"
    assert contract.dropped["channel_id"].startswith("high cardinality")
    assert contract.dropped["title"] == "free text"


def test_order_is_the_contracts_not_the_files():
    contract = feature_contract(COLUMNS)
    assert feature_contract(COLUMNS[::-1]) == contract
    assert feature_contract(COLUMNS[::-1]).sha256 == contract.sha256


def test_an_older_file_lacks_features():
    lacking = {"is_short", "channel_created_at", "default_language"}
    contract = feature_contract([c for c in COLUMNS if c not in lacking])
    whole = feature_contract(COLUMNS)
    gone = {"is_short", "channel_age_at_publish_days", "default_language"}
    assert contract.features == tuple(f for f in whole.features if f not in gone)
    assert contract.sha256 != whole.sha256
    assert not lacking & set(contract.dropped)
    assert "published_hour" not in feature_contract(["video_id"]).features


def test_an_undeclared_column_is_refused_with_what_to_do():
    with pytest.raises(UndeclaredColumn) as caught:
        feature_contract([*COLUMNS, "my_score", "Views"])
    said = str(caught.value)
    assert said.startswith("expected declared columns only, found 'my_score', 'Views' in")
    for word in ("at_publish", "at_capture", "after_outcome", "CLIPFARM_TRAINING_CONFIG"):
        assert word in said
    assert (
        '{"declared_columns": {"my_score": {"availability": "at_publish", "kind": "numeric"}}}'
        in said
    )


DECLARED = {
    "z_score": Column("at_publish", "numeric"),
    "a_flag": Column("at_publish", "boolean"),
    "genre": Column("at_publish", "categorical"),
    "followers": Column("at_capture", "numeric"),
    "mood": Column("at_capture", "categorical"),
    "shares": Column("after_outcome", "numeric"),
    "note": Column("at_publish", "text"),
    "other_id": Column("at_publish", "identifier"),
    "seen_at": Column("at_publish", "time"),
}


def test_declared_columns_follow_the_contracts_by_name():
    columns = [*COLUMNS, *DECLARED]
    v2 = feature_contract(columns, "v2", DECLARED)
    plain = feature_contract(COLUMNS)
    assert v2.numeric == (*plain.numeric[:-3], "a_flag", "z_score", *plain.numeric[-3:])
    assert v2.categorical == (*CATEGORIES, "genre")
    v1 = feature_contract(columns, "v1", DECLARED)
    assert v1.numeric[-5:-2] == ("a_flag", "followers", "z_score")
    assert v1.categorical == (*CATEGORIES, "genre", "mood")
    for contract in (v1, v2):
        assert {"shares", "note", "other_id", "seen_at"} <= set(contract.dropped)
        assert contract.declared == DECLARED
        assert contract_findings(contract).holds
    assert FeatureContract.from_fields(v2.to_fields()) == v2


def test_a_declared_column_that_the_file_lacks_is_no_feature():
    contract = feature_contract(COLUMNS, "v2", DECLARED)
    assert contract.features == feature_contract(COLUMNS).features


@pytest.mark.parametrize("name", ["channel_view_count", "view_count", "published_hour"])
def test_the_contract_cannot_be_redeclared(name):
    with pytest.raises(BadDeclaration, match=f"{name} is a .* of it and stays as it is"):
        feature_contract(COLUMNS, "v2", {name: Column("at_publish", "numeric")})


@pytest.mark.parametrize("column", [Column("always", "numeric"), Column("at_publish", "number")])
def test_a_declaration_that_is_none_is_refused(column):
    with pytest.raises(BadDeclaration, match="declared column x needs an availability of"):
        feature_contract([*COLUMNS, "x"], "v2", {"x": column})


def test_an_unknown_feature_set_is_refused():
    with pytest.raises(ValueError, match="unknown feature set 'v3': expected one of v1, v2"):
        feature_contract(COLUMNS, "v3")


@pytest.mark.parametrize("feature_set", FEATURE_SETS)
def test_the_contracts_own_features_hold(feature_set):
    contract = feature_contract(COLUMNS, feature_set)
    verdict = contract_findings(contract)
    assert verdict.holds
    assert verdict.examined == len(contract.features)
    assert verdict.facts["feature_set"] == feature_set
    assert_no_feature_leakage(contract)


def smuggle(name, feature_set="v2", *, categorical=False, **declared):
    """A contract as a tampered or foreign file may hold it: with one more feature."""
    contract = feature_contract(COLUMNS, feature_set)
    if categorical:
        contract = replace(contract, categorical=(*contract.categorical, name))
    else:
        contract = replace(contract, numeric=(*contract.numeric, name))
    return replace(contract, declared={n: Column(*c) for n, c in declared.items()})


@pytest.mark.parametrize("feature_set", FEATURE_SETS)
@pytest.mark.parametrize("name", sorted(HARD_LEAKAGE | HIGH_CARDINALITY | {"too_new_for_rates"}))
def test_no_leaky_column_survives(name, feature_set):
    kind = AVAILABILITY[name].kind
    contract = smuggle(name, feature_set, categorical=kind not in {"numeric", "boolean"})
    with pytest.raises(FeatureLeakage, match=f"1 findings in .*: {name}: "):
        assert_no_feature_leakage(contract)


@pytest.mark.parametrize(
    ("contract", "problem"),
    [
        (smuggle("view_count"), "is of the hard leakage set"),
        (
            smuggle("view_count", view_count=("at_publish", "numeric")),
            "is of the hard leakage set",
        ),
        (smuggle("channel_id", categorical=True), "is of high cardinality"),
        (smuggle("channel_view_count"), "captured at the horizon"),
        (
            smuggle("channel_view_count", channel_view_count=("at_publish", "numeric")),
            "captured at the horizon",
        ),
        (smuggle("too_new_for_rates", "v1"), "known only after the outcome"),
        (smuggle("my_score"), "neither a column of the contract, nor declared, nor derived"),
        (smuggle("shares", "v1", shares=("after_outcome", "numeric")), "after the outcome"),
        (smuggle("fans", fans=("at_capture", "numeric")), "captured at the horizon"),
        (smuggle("odd", odd=("some day", "numeric")), "is declared 'some day', none of"),
        (smuggle("title", categorical=True), "is declared text, expected categorical"),
        (smuggle("query"), "is declared categorical, expected numeric or boolean"),
        (smuggle("license", categorical=True), "the contract doesn't list"),
        (smuggle("published_hour", categorical=True), "is derived as a number"),
        (smuggle("title_length"), "is a feature more than once"),
    ],
)
def test_findings_name_what_is_wrong(contract, problem):
    findings = contract_findings(contract).findings
    feature = (contract.categorical + contract.numeric)[-1]
    assert any(problem in finding.problem for finding in findings)
    assert {finding.subject for finding in findings} <= set(contract.features)
    assert feature in contract.features
    with pytest.raises(FeatureLeakage):
        assert_no_feature_leakage(contract)


def test_a_refusal_names_every_leak():
    contract = replace(feature_contract(COLUMNS), numeric=tuple(OUTCOMES))
    with pytest.raises(FeatureLeakage) as caught:
        assert_no_feature_leakage(contract)
    assert all(f"{name}: " in str(caught.value) for name in OUTCOMES)


def test_v1_may_hold_what_was_captured():
    assert contract_findings(smuggle("fans", "v1", fans=("at_capture", "numeric"))).holds


def test_source_columns_are_what_features_are_made_of():
    contract = feature_contract(COLUMNS)
    sources = source_columns(contract)
    assert len(set(sources)) == len(sources)
    assert set(sources) == {*AT_PUBLISH, *CATEGORIES, "published_at", "channel_created_at"}
    assert feature_contract(sources).features == contract.features


def test_tables_cannot_be_changed():
    for table in (AVAILABILITY, DERIVED):
        with pytest.raises(TypeError):
            table["view_count"] = None
    assert set(LOW_CARDINALITY) == set(CATEGORIES)
    assert isinstance(leakage.HARD_LEAKAGE, frozenset)
