import json
import statistics

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipfarm_assets.contracts.features import Column, FeatureContract
from clipfarm_assets.contracts.horizon_csv import COLUMNS
from clipfarm_assets.contracts.leakage import feature_contract
from clipfarm_assets.training.features import metadata_features
from clipfarm_assets.training.metadata_encoder import (
    FeatureMismatch,
    MetadataEncoder,
    Scaling,
)


def contract_of(numeric=("x",), categorical=()):
    declared = {
        **{name: Column("at_publish", "numeric") for name in numeric},
        **{name: Column("at_publish", "categorical") for name in categorical},
    }
    return FeatureContract("v2", tuple(numeric), tuple(categorical), {}, declared)


def frame(**columns):
    """Lists of numbers as Float64, lists of text (names in capitals) as String."""
    schema = {name: pl.String if name.isupper() else pl.Float64 for name in columns}
    return pl.DataFrame(columns, schema=schema)


def fit(**columns):
    numeric = [name for name in columns if not name.isupper()]
    categorical = [name for name in columns if name.isupper()]
    return MetadataEncoder.fit(frame(**columns), contract_of(numeric, categorical))


values = st.lists(st.one_of(st.none(), st.floats(-1e15, 1e15)), min_size=1, max_size=30)


@given(values)
def test_scaling_is_that_of_the_imputed_column(column):
    encoder = fit(x=column)
    (scaling,) = encoder.scalings
    known = [v for v in column if v is not None]
    if not known:
        assert scaling == Scaling(0.0, 0.0, 1.0, low=0.0, high=0.0)
        assert encoder.all_missing == ("x",)
        return
    assert encoder.all_missing == ()
    median = statistics.median(known)
    imputed = [median if v is None else v for v in column]
    spread = max(map(abs, imputed)) or 1.0
    assert scaling.median == pytest.approx(median, abs=1e-12 * spread)
    assert scaling.mean == pytest.approx(statistics.fmean(imputed), abs=1e-12 * spread)
    if len(set(imputed)) == 1 or statistics.pstdev(imputed) <= 1e-20:
        assert scaling.std == 1.0
    else:
        assert scaling.std == pytest.approx(statistics.pstdev(imputed), rel=1e-6, abs=1e-9 * spread)
    assert (scaling.low, scaling.high) == (min(known), max(known))
    assert np.isfinite(encoder.standardised(frame(x=column))).all()
    assert encoder.out_of_range(frame(x=column)) == {}


def test_train_rows_become_mean_0_and_std_1():
    rng = np.random.default_rng(0)
    columns = {
        "count": rng.lognormal(9, 3, 500).tolist(),
        "large": (1e9 + rng.normal(0, 1, 500)).tolist(),
        "some": [None if rng.random() < 0.4 else v for v in rng.normal(0, 1, 500)],
    }
    standardised = fit(**columns).standardised(frame(**columns))
    assert standardised.dtype == np.float32
    np.testing.assert_allclose(standardised.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(standardised.std(axis=0), 1, atol=1e-5)


def test_other_rows_are_scaled_by_train():
    encoder = fit(x=[1.0, None, 3.0, 8.0])
    # median 3, imputed 1 3 3 8: mean 3.75, variance 27.25 - 14.0625 - 6.5 = 6.6875
    np.testing.assert_allclose(
        encoder.standardised(frame(x=[None, 3.75, 8.0, float("nan")]))[:, 0],
        np.array([-0.75, 0.0, 4.25, -0.75]) / 6.6875**0.5,
        rtol=1e-6,
    )


@pytest.mark.parametrize("spread", [5e-324, 1e-300, 1e-160])
def test_a_spread_of_rounding_is_none(spread):
    encoder = fit(x=[0.0, spread])
    assert encoder.scalings[0].std == 1.0
    found = encoder.standardised(frame(x=[0.0, spread, 1e15]))[:, 0]
    np.testing.assert_allclose(found, 0.0, atol=1e-30)


@pytest.mark.parametrize("value", [0.0, 1280.0, 1280 / 720, 0.1, -1e15])
@pytest.mark.parametrize("n", [1, 3, 36, 2700])
def test_a_constant_column_becomes_0(value, n):
    """Also where its mean, summed, isn't quite its value."""
    encoder = fit(x=[value] * n)
    assert encoder.scalings == (Scaling(value, value, 1.0, low=value, high=value),)
    others = frame(x=[value, None, value + 2, value - 2])
    assert encoder.standardised(others).tolist() == [[0.0]] * 4
    assert encoder.out_of_range(others) == {"x": 2}


def test_a_column_that_train_knows_nothing_of():
    encoder = fit(x=[1.0, 2.0], y=[None, float("nan")])
    assert encoder.all_missing == ("y",)
    assert encoder.scalings[1] == Scaling(median=0.0, mean=0.0, std=1.0, low=0.0, high=0.0)
    table = frame(x=[1.0] * 4, y=[None, 5.0, -1e15, 0.0])
    assert encoder.standardised(table)[:, 1].tolist() == [0.0] * 4
    np.testing.assert_array_equal(encoder.numeric(table)[:, 1], [np.nan, 0.0, 0.0, 0.0])
    assert encoder.out_of_range(table) == {"y": 2}


def test_numeric_values_within_what_train_held_are_as_they_are():
    encoder = fit(x=[0.0, 2.0], y=[-1.0, 1.0])
    table = frame(x=[0.1, None, 2.0, 0.0], y=[float("nan"), -0.0, 1 / 3, -1.0])
    numeric = encoder.numeric(table)
    assert numeric.dtype == np.float64
    expected = np.array([[0.1, np.nan], [np.nan, -0.0], [2.0, 1 / 3], [0.0, -1.0]])
    assert numeric.tobytes() == expected.tobytes()
    assert encoder.out_of_range(table) == {}


def test_values_beyond_what_train_held_count_as_the_nearest_that_it_held():
    encoder = fit(x=[3.0, 8.0, None, 5.0], y=[0.0, 1.0, 2.0, 3.0], z=[-4.0] * 4)
    beyond = frame(
        x=[1e300, -1e300, 8.0, np.nextafter(8.0, 9.0), None, float("nan")],
        y=[1.5, 0.0, 3.0, 0.1, 2.9, 1.0],
        z=[-4.0, -4.1, None, 0.0, -4.0, 5e-324],
    )
    nearest = frame(
        x=[8.0, 3.0, 8.0, 8.0, None, None],
        y=beyond["y"].to_list(),
        z=[-4.0, -4.0, None, -4.0, -4.0, -4.0],
    )
    assert encoder.numeric(beyond).tobytes() == encoder.numeric(nearest).tobytes()
    assert encoder.standardised(beyond).tobytes() == encoder.standardised(nearest).tobytes()
    # Of y nothing lies outside, and a missing value does not either.
    assert encoder.out_of_range(beyond) == {"x": 3, "z": 3}
    assert list(encoder.out_of_range(beyond).values()) == [3, 3]
    assert encoder.out_of_range(nearest) == {}
    assert beyond["x"][0] == 1e300, "what is given stays as it is"


def test_counts_of_what_is_out_of_range_are_plain_numbers():
    counts = fit(x=[1.0]).out_of_range(frame(x=[2.0, 0.0]))
    assert json.loads(json.dumps(counts)) == {"x": 2}


def test_codes_are_1_up_in_sorted_order_and_0_for_the_rest():
    encoder = fit(A=["b", "a", None, "", "b", "É", "Z"], B=[None] * 7)
    assert encoder.categories == (("Z", "a", "b", "É"), ())
    assert encoder.cardinalities == (5, 1)
    table = frame(A=["Z", "a", "b", "É", "new", None, "", "A"], B=["x"] * 8)
    codes = encoder.codes(table)
    assert codes.dtype == np.int64
    assert codes.tolist() == [[c, 0] for c in (1, 2, 3, 4, 0, 0, 0, 0)]


def test_one_hot_is_a_column_a_known_category():
    encoder = fit(A=["b", "a"], B=["x", "x"])
    one_hot = encoder.one_hot(frame(A=["a", "b", "new", None], B=[None, "x", "x", "y"]))
    assert one_hot.dtype == np.float64
    assert one_hot.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]]
    assert one_hot.shape[1] == sum(c - 1 for c in encoder.cardinalities)


def test_the_order_of_train_rows_does_not_matter_to_categories_and_medians():
    encoder = fit(x=[3.0, 1.0, 2.0], A=["c", "a", "b"])
    turned = fit(x=[1.0, 2.0, 3.0], A=["a", "b", "c"])
    assert encoder.categories == turned.categories
    assert encoder.scalings[0].median == turned.scalings[0].median


def test_no_features_of_one_kind_or_of_both():
    only_numeric, only_categorical = fit(x=[1.0, 3.0]), fit(A=["a", "b"])
    assert only_numeric.codes(frame(x=[1.0])).shape == (1, 0)
    assert only_numeric.one_hot(frame(x=[1.0])).shape == (1, 0)
    assert only_categorical.standardised(frame(A=["a"])).shape == (1, 0)
    assert only_categorical.numeric(frame(A=["a"])).shape == (1, 0)
    assert only_categorical.out_of_range(frame(A=["other"])) == {}
    none = MetadataEncoder.fit(pl.DataFrame(), contract_of(()))
    assert none.standardised(pl.DataFrame()).shape == (0, 0)


def test_no_rows():
    encoder = fit(x=[], A=[])
    assert encoder.all_missing == ("x",)
    assert encoder.cardinalities == (1,)
    table = frame(x=[], A=[])
    assert encoder.standardised(table).shape == (0, 1)
    assert encoder.out_of_range(table) == {}
    assert encoder.one_hot(table).shape == (0, 0)
    assert fit(x=[1.0], A=["a"]).one_hot(table).shape == (0, 1)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (frame(x=[1.0]), "missing y, A"),
        (frame(x=[1.0], y=[1.0], A=["a"], z=[1.0]), "unexpected z"),
        (frame(x=[1.0], z=[1.0], A=["a"]), "missing y; unexpected z"),
        (frame(y=[1.0], x=[1.0], A=["a"]), "another order: y, x, A"),
        (
            frame(x=[1.0], y=[1.0], A=["a"]).with_columns(pl.col("y").cast(pl.Int64)),
            "y is Int64, not Float64",
        ),
        (
            frame(x=[1.0], y=[1.0], A=["a"]).with_columns(pl.col("A").cast(pl.Categorical)),
            "A is Categorical.*, not String",
        ),
        (pl.DataFrame(), "found 0 columns: missing x, y, A"),
    ],
)
def test_other_columns_than_the_contracts_are_refused(table, problem):
    encoder = fit(x=[1.0], y=[1.0], A=["a"])
    for method in (
        encoder.numeric,
        encoder.out_of_range,
        encoder.standardised,
        encoder.codes,
        encoder.one_hot,
    ):
        with pytest.raises(FeatureMismatch, match=r"3 features of a v2 contract .*" + problem):
            method(table)
    with pytest.raises(FeatureMismatch, match=problem):
        MetadataEncoder.fit(table, encoder.contract)


def test_infinite_values_are_refused_by_column():
    infinite = frame(x=[1.0, 1.0], y=[float("inf"), float("-inf")])
    with pytest.raises(FeatureMismatch, match=r"infinite values in y \(2 rows\)"):
        MetadataEncoder.fit(infinite, contract_of(("x", "y")))
    encoder = fit(x=[1.0], y=[2.0])
    for method in (encoder.numeric, encoder.out_of_range, encoder.standardised):
        with pytest.raises(FeatureMismatch, match=r"infinite values in y \(2 rows\)"):
            method(infinite)


def test_of_too_many_categories_the_most_frequent_are_known():
    """A column of the contract, as `query`, can't be taken out: any store has to be fit for it."""
    many = [f"value {i:03}" for i in range(300)]
    few = fit(A=many[:255])
    assert (few.cardinalities, few.rare) == ((256,), {})
    assert b"rare_categories" not in few.to_json()

    # The first forty come once, the others twice.
    encoder = fit(A=[*many, *many[40:], None, "", ""])
    assert encoder.cardinalities == (256,)
    assert encoder.categories == (tuple(many[40:295]),)
    assert encoder.rare == {"A": 45}
    codes = encoder.codes(frame(A=[many[0], many[40], many[299], "new", None]))
    assert codes.tolist() == [[0], [1], [0], [0], [0]]
    assert MetadataEncoder.from_json(encoder.to_json()) == encoder


bits = st.floats(-1e15, 1e15)


@given(
    st.lists(st.one_of(st.none(), bits), min_size=1, max_size=8),
    st.lists(st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]))), max_size=8),
)
def test_json_gives_the_same_encoder_and_bits_back(numbers, texts):
    texts = (texts + [None] * len(numbers))[: len(numbers)]
    encoder = fit(x=numbers, A=texts)
    data = encoder.to_json()
    read = MetadataEncoder.from_json(data)
    assert read == encoder
    assert read.to_json() == data
    table = frame(x=numbers, A=texts)
    assert read.standardised(table).tobytes() == encoder.standardised(table).tobytes()
    beyond = frame(x=[-1e300, 1e300], A=[None, None])
    assert read.numeric(beyond).tobytes() == encoder.numeric(beyond).tobytes()
    assert read.codes(table).tobytes() == encoder.codes(table).tobytes()


def test_json_of_a_real_contract():
    texts = pl.DataFrame({name: ["1", "0", ""] for name in COLUMNS})
    contract = feature_contract(COLUMNS)
    encoder = MetadataEncoder.fit(metadata_features(texts, contract).metadata, contract)
    read = MetadataEncoder.from_json(encoder.to_json())
    assert read == encoder
    assert read.contract.sha256 == contract.sha256
    json.loads(encoder.to_json(), parse_constant=pytest.fail)  # no NaN, no Infinity


def scaling(**changes):
    """The fields of ``x`` that differ from those of [1, 2]; None takes one away."""
    fields = {"median": 1.5, "mean": 1.5, "std": 0.5, "low": 1.0, "high": 2.0} | changes
    return {"numeric": {"x": {name: v for name, v in fields.items() if v is not None}}}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"contract": None},
        {"contract": {"feature_set": "v2"}},
        {"numeric": {}},
        scaling(std=0.0),
        scaling(std=-1.0),
        scaling(mean=float("nan")),
        scaling(std=None),
        scaling(low=None),
        scaling(high=None),
        scaling(beyond=1.0),
        scaling(median="a"),
        scaling(low=1.6),
        scaling(high=1.4),
        scaling(low=2.0, high=1.0),
        scaling(low=float("-inf")),
        scaling(high=float("inf")),
        scaling(low=float("nan")),
        {"categorical": {"A": ["b", "a"]}},
        {"categorical": {"A": ["a", "a"]}},
        {"categorical": {}},
        {"all_missing": None},
    ],
)
def test_json_that_is_none_of_it_is_refused(change):
    fields = json.loads(fit(x=[1.0, 2.0], A=["a", "b"]).to_json())
    assert fields["numeric"] == scaling()["numeric"]
    assert MetadataEncoder.from_json(json.dumps(fields).encode()).cardinalities == (3,)
    with pytest.raises(ValueError, match="not a metadata encoder as a snapshot holds it"):
        MetadataEncoder.from_json(json.dumps({**fields, **change}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b"{}"])
def test_bytes_that_are_no_encoder_are_refused(data):
    with pytest.raises(ValueError, match="not a metadata encoder"):
        MetadataEncoder.from_json(data)
