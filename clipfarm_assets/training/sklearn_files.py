"""Fitted scikit-learn estimators as files: joblib for the contract, skops for whoever loads them.

Reading a joblib file runs whatever its writer wished, so `from_joblib` reads none but the very
bytes whose hash it is told. A skops file is data: a tree of types and their state. `from_skops`
makes objects of the short list of types that the suite's own estimators consist of; any other type
is refused before anything is made.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import numpy as np

TYPES: Final = frozenset(
    {
        "builtins.dict",
        "builtins.list",
        "builtins.slice",
        "builtins.str",
        "builtins.tuple",
        "numpy.dtype",
        "numpy.float64",
        "numpy.ndarray",
        "numpy.random._generator.Generator",
        "numpy.uint64",
        "sklearn._loss._loss.CyHalfSquaredError",
        "sklearn._loss.link.IdentityLink",
        "sklearn._loss.link.Interval",
        "sklearn._loss.loss.HalfSquaredError",
        "sklearn.compose._column_transformer.ColumnTransformer",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingRegressor",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.impute._base.SimpleImputer",
        "sklearn.linear_model._ridge.RidgeCV",
        "sklearn.pipeline.Pipeline",
        "sklearn.preprocessing._data.StandardScaler",
        "sklearn.preprocessing._encoders.OneHotEncoder",
    }
)
"""All types in the files of fitted ridge pipelines and boosted trees, found by writing some."""

_TRUSTED: Final = (
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
"""Those of `TYPES` that skops asks about; for trees it can't know what `_check_trees` checks."""

_LOADERS: Final = frozenset(
    {
        "DTypeNode",
        "DictNode",
        "JsonNode",
        "ListNode",
        "LossNode",
        "NdArrayNode",
        "ObjectNode",
        "RandomGeneratorNode",
        "SliceNode",
        "TupleNode",
        "TypeNode",
    }
)
_MAX_BYTES: Final = 1 << 30
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_SCHEMA: Final = "schema.json"


class RefusedEstimator(ValueError):  # noqa: N818 - says what happened to it
    """A file that no estimator is made of: damaged, not the expected one, or of foreign types."""


def to_skops(estimator: Any) -> bytes:
    """An estimator as a skops file; estimators in the same state give the same bytes.

    What skops writes holds the time and the memory address of every object. Members are named by
    their content instead, and addresses left out: all they would do is keep two attributes that
    hold one object from becoming two equal ones.

    Raises:
        RefusedEstimator: `from_skops` would not read it.
    """
    from skops.io import dumps

    with zipfile.ZipFile(io.BytesIO(dumps(estimator))) as archive:
        schema = json.loads(archive.read(_SCHEMA))
        members = {name: archive.read(name) for name in archive.namelist() if name != _SCHEMA}
    _check_types(schema, type(estimator).__name__)
    names = {name: f"{hashlib.sha256(data).hexdigest()[:32]}.npy" for name, data in members.items()}
    for node in _nodes(schema):
        node.pop("__id__", None)
        if node.get("__loader__") == "NdArrayNode" and node.get("type") == "numpy":
            node["file"] = names[node["file"]]
    stored = {names[name]: data for name, data in members.items()}
    stored[_SCHEMA] = json.dumps(schema, separators=(",", ":")).encode()
    return _zip(stored)


def from_skops(data: bytes, name: str) -> Any:
    """The estimator that `to_skops` wrote.

    Args:
        data: The file.
        name: How errors call it.

    Raises:
        RefusedEstimator: It isn't readable, has types beyond `TYPES`, or trees whose nodes point
            outside of them, which scikit-learn would follow.
    """
    from skops.io import loads

    schema = _schema(data, name)
    _check_types(schema, name)
    try:
        # Nothing foreign is made: all types and loaders it names were found in the lists above.
        estimator = loads(data, trusted=list(_TRUSTED))
    except Exception as error:  # skops and numpy raise whatever damaged content leads to
        msg = f"{name} is not a readable skops file: {type(error).__name__}: {error}"
        raise RefusedEstimator(msg) from error
    _check_trees(estimator, schema, name)
    return estimator


def to_joblib(estimator: Any) -> bytes:
    """An estimator as a joblib file, as the training contract asks for (section 9)."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump(estimator, buffer)
    return buffer.getvalue()


def from_joblib(data: bytes, sha256: str) -> Any:
    """The estimator of a joblib file, if it is the expected file.

    Reading joblib runs code that the file names: the hash is compared before anything is read, and
    has to come from somewhere that the file's writer could not reach.

    Args:
        data: The file.
        sha256: Its hash in hex, as the snapshot's manifest has it.

    Raises:
        RefusedEstimator: The hash is another.
    """
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        msg = (
            f"a joblib file has sha256 {found} where {sha256} was expected: it is not the one that "
            "was written, and is not read, since reading it would run its code"
        )
        raise RefusedEstimator(msg)
    import joblib

    # The very bytes that were written: their hash was compared above, before anything is read.
    return joblib.load(io.BytesIO(data))


def estimator_artifacts(name: str, estimator: Any) -> dict[str, bytes]:
    """``<name>.skops``, and ``<name>.joblib`` of what is read back from it.

    So both hold one estimator, the skops file is known to be readable, and the joblib bytes, which
    tell one object from two equal ones, don't depend on how the estimator came about.
    """
    file = f"{name}.skops"
    data = to_skops(estimator)
    return {file: data, f"{name}.joblib": to_joblib(from_skops(data, file))}


def load_estimator(read: Callable[[str], bytes], name: str) -> Any:
    """The estimator that `estimator_artifacts` wrote, from its skops file.

    Raises:
        RefusedEstimator: See `from_skops`.
    """
    file = f"{name}.skops"
    return from_skops(read(file), file)


def _schema(data: bytes, name: str) -> Any:
    """The tree of types in a skops file."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
            schema = json.loads(archive.read(_SCHEMA)) if size <= _MAX_BYTES else None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        RecursionError,
        RuntimeError,
        ValueError,
    ) as error:
        msg = f"{name} is not a readable skops file: {type(error).__name__}: {error}"
        raise RefusedEstimator(msg) from error
    if size > _MAX_BYTES:
        msg = f"{name} unpacks to {size} bytes, more than the limit of {_MAX_BYTES}"
        raise RefusedEstimator(msg)
    return schema


def _zip(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # as on Unix, wherever it is written
            info.external_attr = 0o600 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in a skops schema."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _check_types(schema: Any, name: str) -> None:
    foreign = set()
    for node in _nodes(schema):
        if "__class__" in node or "__loader__" in node:
            type_name = f"{node.get('__module__')}.{node.get('__class__')}"
            if type_name not in TYPES:
                foreign.add(type_name)
            elif node.get("__loader__") not in _LOADERS:
                foreign.add(f"{node.get('__loader__')} of {type_name}")
    if foreign:
        msg = (
            f"{name} holds {', '.join(sorted(foreign))[:500]}: only the types of the suite's own "
            "estimators are loaded"
        )
        raise RefusedEstimator(msg)


def _check_trees(estimator: Any, schema: Any, name: str) -> None:
    """Refuse trees that scikit-learn, which checks no index, would leave the memory of.

    Raises:
        RefusedEstimator: A child lies outside of its tree or before its parent, a feature outside
            of the input, a split is on categories, which the suite has none of, or trees lie where
            they are not looked for.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    if not isinstance(estimator, HistGradientBoostingRegressor):
        if any(node.get("__class__") == "TreePredictor" for node in _nodes(schema)):
            msg = f"{name} holds trees inside of another estimator: the suite writes none"
            raise RefusedEstimator(msg)
        return
    try:
        sound = all(
            _is_sound(tree.nodes, estimator.n_features_in_)
            for predictors in estimator._predictors
            for tree in predictors
        )
    except (AttributeError, TypeError):
        sound = False
    if not sound:
        msg = f"{name} has a tree that points outside of its nodes or of the features"
        raise RefusedEstimator(msg)


def _is_sound(nodes: Any, features: int) -> bool:
    from sklearn.ensemble._hist_gradient_boosting.predictor import PREDICTOR_RECORD_DTYPE

    is_list = isinstance(nodes, np.ndarray) and nodes.ndim == 1 and len(nodes) > 0
    if not is_list or nodes.dtype != PREDICTOR_RECORD_DTYPE:
        return False
    inner = np.flatnonzero(nodes["is_leaf"] == 0)
    splits = nodes[inner]
    return all(
        bool(condition.all())
        for condition in (
            splits["left"] > inner,
            splits["right"] > inner,
            splits["left"] < len(nodes),
            splits["right"] < len(nodes),
            splits["feature_idx"] >= 0,
            splits["feature_idx"] < features,
            splits["is_categorical"] == 0,
        )
    )
