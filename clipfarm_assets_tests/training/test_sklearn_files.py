"""Estimators come back as they were, from the same bytes each time, or are refused unread."""

import hashlib
import io
import json
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from clipfarm_assets.training.sklearn_files import (
    TYPES,
    RefusedEstimator,
    estimator_artifacts,
    from_joblib,
    from_skops,
    load_estimator,
    to_joblib,
    to_skops,
)
from clipfarm_assets_tests.processes import call

INPUT = np.random.default_rng(0).normal(size=(200, 4))
INPUT[:, 3] = np.random.default_rng(1).integers(0, 3, 200)
TARGET = INPUT[:, 0] + 0.1 * INPUT[:, 1]


def trees(max_iter=20, **options):
    return HistGradientBoostingRegressor(max_iter=max_iter, random_state=0, **options).fit(
        INPUT, TARGET
    )


def pipeline():
    columns = ColumnTransformer(
        [
            ("n", Pipeline([("i", SimpleImputer()), ("s", StandardScaler())]), slice(0, 3)),
            ("c", OneHotEncoder(handle_unknown="ignore", sparse_output=False), [3]),
        ]
    )
    return Pipeline([("columns", columns), ("ridge", RidgeCV(alphas=[0.1, 1]))]).fit(INPUT, TARGET)


BUILDERS = pytest.mark.parametrize("build", [trees, pipeline])


@BUILDERS
def test_comes_back_as_it_was(build):
    estimator = build()
    stored = estimator_artifacts("model", estimator)
    expected = estimator.predict(INPUT)

    assert sorted(stored) == ["model.joblib", "model.skops"]
    assert np.array_equal(load_estimator(stored.__getitem__, "model").predict(INPUT), expected)
    # Our own bytes of this test.
    data = stored["model.joblib"]
    again = from_joblib(data, hashlib.sha256(data).hexdigest())
    assert np.array_equal(again.predict(INPUT), expected)


@BUILDERS
def test_equal_estimators_give_equal_bytes(build):
    first, second = build(), build()
    assert skops.io.dumps(first) != skops.io.dumps(second), "else there is nothing to make equal"
    assert estimator_artifacts("m", first) == estimator_artifacts("m", second)

    reread = from_skops(to_skops(first), "first")
    assert estimator_artifacts("m", reread) == estimator_artifacts("m", first)


def test_another_estimator_gives_other_bytes():
    assert to_skops(trees()) != to_skops(trees(max_iter=19))


def early_stopped():
    return estimator_artifacts("t", trees(early_stopping=True))


def test_bytes_are_the_same_in_another_process():
    assert call(early_stopped) == early_stopped()


def test_skops_itself_reads_what_is_written():
    data = to_skops(pipeline())
    assert skops.io.get_untrusted_types(data=data) == ["numpy.dtype"]
    # Our own bytes of this test, of types that skops or this list allows.
    estimator = skops.io.loads(data, trusted=["numpy.dtype"])
    assert np.array_equal(estimator.predict(INPUT), pipeline().predict(INPUT))


def test_every_type_of_the_list_is_needed():
    from clipfarm_assets.training.config import SuiteConfig
    from clipfarm_assets.training.families import ridge
    from clipfarm_assets_tests.training import kit

    rows = kit.planted(60)
    model = ridge.fit(rows.train, rows.val, rows.encoder, SuiteConfig(), 0, kit.unheard)
    found = types_of(to_skops(model.pipeline)) | types_of(to_skops(trees(early_stopping=True)))
    assert found == TYPES


def test_a_type_outside_the_list_is_refused_both_ways():
    estimator = LinearRegression().fit(INPUT, TARGET)  # which skops would trust by itself
    with pytest.raises(RefusedEstimator, match=r"sklearn\.linear_model\._base\.LinearRegression"):
        to_skops(estimator)
    with pytest.raises(RefusedEstimator, match=r"ridge\.skops holds .*LinearRegression: only the"):
        from_skops(skops.io.dumps(estimator), "ridge.skops")


@pytest.mark.parametrize("loader", ["TypeNode", "FunctionNode", "ObjectNode", "MethodNode"])
def test_a_function_is_refused_before_it_is_looked_up(loader):
    node = {"__class__": "no_such_function", "__module__": "os", "__loader__": loader}
    node |= {"content": {"module_path": "os", "function": "system"}}
    with pytest.raises(RefusedEstimator, match=r"holds os\.no_such_function"):
        from_skops(with_schema(lambda schema: schema["content"]["content"].update(x=node)), "x")


def test_a_loader_outside_the_list_is_refused():
    def other_loader(schema):
        schema["content"]["content"]["loss"]["__loader__"] = "OperatorFuncNode"

    with pytest.raises(RefusedEstimator, match=r"holds OperatorFuncNode of builtins\.str"):
        from_skops(with_schema(other_loader), "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("left", 10_000),
        ("right", 10_000),
        ("left", 0),  # a loop
        ("right", 0),
        ("feature_idx", 4),
        ("feature_idx", -1),
        ("is_categorical", 1),
    ],
)
def test_trees_that_point_elsewhere_are_refused(field, value):
    estimator = trees()
    estimator._predictors[7][0].nodes[field][0] = value
    with pytest.raises(RefusedEstimator, match="points outside"):
        from_skops(to_skops(estimator), "x")


def test_a_tree_without_nodes_is_refused():
    estimator = trees()
    estimator._predictors[7][0].nodes = estimator._predictors[7][0].nodes[:0]
    with pytest.raises(RefusedEstimator, match="points outside"):
        from_skops(to_skops(estimator), "x")


def test_trees_inside_of_another_estimator_are_refused():
    with pytest.raises(RefusedEstimator, match="inside of another"):
        from_skops(to_skops(Pipeline([("trees", trees())])), "x")


def test_a_damaged_file_is_refused():
    data = to_skops(trees())
    for size in range(0, len(data), len(data) // 40):
        with pytest.raises(RefusedEstimator, match="not a readable skops file"):
            from_skops(data[:size], "cut.skops")

    def no_such_file(schema):
        schema["content"]["content"]["_predictors"]["content"][0]["content"][0]["content"][
            "content"
        ]["nodes"]["file"] = "missing.npy"

    with pytest.raises(RefusedEstimator, match="not a readable skops file"):
        from_skops(with_schema(no_such_file), "x")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_joblib_of_another_hash_is_not_read(tmp_path):
    buffer = io.BytesIO()
    joblib.dump(Touch(tmp_path / "touched"), buffer)
    data = buffer.getvalue()
    expected = hashlib.sha256(to_joblib(trees())).hexdigest()

    with pytest.raises(RefusedEstimator, match=f"where {expected} was expected"):
        from_joblib(data, expected)
    assert not (tmp_path / "touched").exists()

    # Our own payload, which makes a file in this test's folder.
    from_joblib(data, hashlib.sha256(data).hexdigest())
    assert (tmp_path / "touched").exists(), "else not reading it proves nothing"


def read_schema(data):
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return json.loads(archive.read("schema.json"))


def types_of(data):
    found, waiting = set(), [read_schema(data)]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__class__" in value:
                found.add(f"{value['__module__']}.{value['__class__']}")
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found


def with_schema(change):
    """The file of some trees, with a schema that somebody changed."""
    data = to_skops(trees())
    schema = read_schema(data)
    change(schema)
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            new.writestr(name, json.dumps(schema) if name == "schema.json" else old.read(name))
    return out.getvalue()
