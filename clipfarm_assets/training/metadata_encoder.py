"""Metadata features as the numbers that models take, by what the train rows were like.

The one place where medians, means, standard deviations and categories live: fitted on the train
part of a split, saved with the snapshot, and applied unchanged when serving.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.features import FeatureContract

MAX_CATEGORIES: Final = 255
"""Of a column that has more in train the most frequent ones are known; the others, which tell clips
apart instead of describing them, are as one unseen."""

_SMALLEST_STD: Final = 1e-20
"""A spread below it is rounding, and dividing by it leaves what float32 can hold."""

_FORMAT: Final = 1


class FeatureMismatch(ValueError):  # noqa: N818
    """The metadata are not those of the encoder's contract: other columns, types or values."""


@dataclass(frozen=True)
class Scaling:
    """How one numeric feature is imputed and standardised.

    Attributes:
        median: Of the known train values; takes the place of a missing one.
        mean, std: Of the train values after imputation (population standard deviation, ddof 0);
            a constant column has `std` 1, so that it becomes 0.
        low, high: Least and greatest of the known train values.
    """

    median: float
    mean: float
    std: float
    low: float
    high: float


@dataclass(frozen=True)
class MetadataEncoder:
    """What was learned of K numeric and C categorical features from the train rows.

    Attributes:
        contract: The features, in order.
        scalings: One a numeric feature.
        categories: One a categorical feature: the known values, sorted by code point.
        all_missing: Numeric features of which train knows no value; they become 0 throughout.
        rare: Categorical feature -> how many categories of train are beyond `MAX_CATEGORIES`, and
            therefore as unseen ones; features without such are left out.
    """

    contract: FeatureContract
    scalings: tuple[Scaling, ...]
    categories: tuple[tuple[str, ...], ...]
    all_missing: tuple[str, ...]
    rare: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def fit(cls, metadata: pl.DataFrame, contract: FeatureContract) -> "MetadataEncoder":
        """Learn from train rows.

        Args:
            metadata: N rows in the form of `ClipBatch.metadata`; null (or NaN, or an empty string)
                is missing.
            contract: Whose features they are.

        Raises:
            FeatureMismatch: The columns are not the contract's, or a value is infinite.
        """
        numeric = _numeric(metadata, contract)
        categories = {name: _categories(metadata[name]) for name in contract.categorical}
        return cls(
            contract=contract,
            scalings=tuple(_scaling(column) for column in numeric.T),
            categories=tuple(tuple(sorted(all_[:MAX_CATEGORIES])) for all_ in categories.values()),
            all_missing=tuple(
                name
                for name, column in zip(contract.numeric, numeric.T, strict=True)
                if np.isnan(column).all()
            ),
            rare={
                name: len(all_) - MAX_CATEGORIES
                for name, all_ in categories.items()
                if len(all_) > MAX_CATEGORIES
            },
        )

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each categorical feature, code 0 included."""
        return tuple(len(known) + 1 for known in self.categories)

    def numeric(self, metadata: pl.DataFrame) -> NDArray[np.float64]:
        """The numeric features, float64 ``(N, K)``; NaN is missing.

        A value outside of what train held counts as the nearest that it held: a linear model or a
        network would go on along its slope, and predict a clip four times as long as any it has
        seen to get no views at all. `out_of_range` counts them.

        Raises:
            FeatureMismatch: As in `fit`.
        """
        low, high = self._scaling("low"), self._scaling("high")
        values: NDArray[np.float64] = np.clip(_numeric(metadata, self.contract), low, high)
        return values

    def out_of_range(self, metadata: pl.DataFrame) -> dict[str, int]:
        """How many values of each numeric feature lie outside of what train held; none left out.

        Raises:
            FeatureMismatch: As in `fit`.
        """
        values = _numeric(metadata, self.contract)
        outside = (values < self._scaling("low")) | (values > self._scaling("high"))
        counts = outside.sum(axis=0).tolist()
        return {n: count for n, count in zip(self.contract.numeric, counts, strict=True) if count}

    def standardised(self, metadata: pl.DataFrame) -> NDArray[np.float32]:
        """``(x - mean) / std`` of `numeric`, the median where missing, float32 ``(N, K)``.

        Raises:
            FeatureMismatch: As in `fit`.
        """
        values = self.numeric(metadata)
        median, mean, std = (self._scaling(name) for name in ("median", "mean", "std"))
        imputed = np.where(np.isnan(values), median, values)
        return ((imputed - mean) / std).astype(np.float32)

    def codes(self, metadata: pl.DataFrame) -> NDArray[np.int64]:
        """Category numbers, int64 ``(N, C)``: 0 is missing or unseen in train, known ones from 1.

        Raises:
            FeatureMismatch: As in `fit`.
        """
        _check_columns(metadata, self.contract)
        codes = np.zeros((metadata.height, len(self.categories)), dtype=np.int64)
        for column, known in enumerate(self.categories):
            code = {category: number for number, category in enumerate(known, start=1)}
            series = metadata[self.contract.categorical[column]]
            codes[:, column] = [code.get(value, 0) for value in series]
        return codes

    def one_hot(self, metadata: pl.DataFrame) -> NDArray[np.float64]:
        """A column a known category, float64 ``(N, sum(cardinalities - 1))``; code 0 is all zeros.

        Raises:
            FeatureMismatch: As in `fit`.
        """
        codes = self.codes(metadata)
        blocks = [
            codes[:, [column]] == np.arange(1, cardinality)
            for column, cardinality in enumerate(self.cardinalities)
        ]
        return np.hstack([np.zeros((len(codes), 0)), *blocks]).astype(np.float64)

    def to_json(self) -> bytes:
        """As JSON; floats are written so that reading gives the same bits."""
        fields = {
            "format": _FORMAT,
            "contract": self.contract.to_fields(),
            "numeric": {
                name: asdict(s)
                for name, s in zip(self.contract.numeric, self.scalings, strict=True)
            },
            "categorical": dict(zip(self.contract.categorical, self.categories, strict=True)),
            "all_missing": self.all_missing,
            # Only where there are some: files without are as they always were.
            **({"rare_categories": dict(self.rare)} if self.rare else {}),
        }
        text = json.dumps(fields, ensure_ascii=False, indent=1, sort_keys=True, allow_nan=False)
        return f"{text}\n".encode()

    @classmethod
    def from_json(cls, data: bytes) -> "MetadataEncoder":
        """The encoder that `to_json` wrote.

        Raises:
            ValueError: It is not one.
        """
        try:
            fields = json.loads(data)
            if fields["format"] != _FORMAT:
                msg = f"expected format {_FORMAT}, found {fields['format']!r}"
                raise ValueError(msg)  # noqa: TRY301 - one place says what the file should be
            contract = FeatureContract.from_fields(fields["contract"])
            encoder = cls(
                contract=contract,
                scalings=tuple(_read_scaling(fields["numeric"], name) for name in contract.numeric),
                categories=tuple(
                    _read_categories(fields["categorical"], name) for name in contract.categorical
                ),
                all_missing=tuple(fields["all_missing"]),
                rare={n: int(count) for n, count in fields.get("rare_categories", {}).items()},
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            msg = f"not a metadata encoder as a snapshot holds it: {type(error).__name__}: {error}"
            raise ValueError(msg) from None
        return encoder

    def _scaling(self, name: str) -> NDArray[np.float64]:
        return np.array([getattr(scaling, name) for scaling in self.scalings], dtype=np.float64)


def _check_columns(metadata: pl.DataFrame, contract: FeatureContract) -> None:
    expected: dict[str, pl.DataType] = {
        **dict.fromkeys(contract.numeric, pl.Float64()),
        **dict.fromkeys(contract.categorical, pl.String()),
    }
    found = dict(metadata.schema)
    if list(found.items()) == list(expected.items()):
        return
    lacking = [name for name in expected if name not in found]
    beyond = [name for name in found if name not in expected]
    types = [
        f"{name} is {found[name]}, not {dtype}"
        for name, dtype in expected.items()
        if name in found and found[name] != dtype
    ]
    problems = [
        *([f"missing {', '.join(lacking)}"] if lacking else []),
        *([f"unexpected {', '.join(beyond)}"] if beyond else []),
        *types,
    ] or [f"another order: {', '.join(found)}"]
    msg = (
        f"expected the {len(expected)} features of a {contract.feature_set} contract "
        f"({', '.join(expected)}), found {len(found)} columns: {'; '.join(problems)}; make them "
        "with metadata_features and that contract"
    )
    raise FeatureMismatch(msg)


def _numeric(metadata: pl.DataFrame, contract: FeatureContract) -> NDArray[np.float64]:
    _check_columns(metadata, contract)
    values = np.empty((metadata.height, len(contract.numeric)), dtype=np.float64)
    for column, name in enumerate(contract.numeric):
        values[:, column] = metadata[name].fill_null(float("nan")).to_numpy()
    infinite = np.isinf(values).sum(axis=0)
    if infinite.any():
        where = ", ".join(
            f"{name} ({count} rows)"
            for name, count in zip(contract.numeric, infinite, strict=True)
            if count
        )
        msg = f"expected finite features, found infinite values in {where}: make them missing"
        raise FeatureMismatch(msg)
    return values


def _scaling(column: NDArray[np.float64]) -> Scaling:
    known = column[~np.isnan(column)]
    if not len(known):
        return Scaling(median=0.0, mean=0.0, std=1.0, low=0.0, high=0.0)
    low, high = float(known.min()), float(known.max())
    median = float(np.median(known))
    imputed = np.where(np.isnan(column), median, column)
    if imputed.min() == imputed.max():
        # Summing rounds: the mean of equal values can differ from them by an ulp, and a division
        # by the tiny standard deviation that follows would make noise of it.
        return Scaling(median, median, 1.0, low, high)
    std = float(imputed.std())
    return Scaling(median, float(imputed.mean()), std if std > _SMALLEST_STD else 1.0, low, high)


def _categories(series: pl.Series) -> list[str]:
    """The most frequent one first; of equally frequent ones by code point."""
    counts = Counter(series.drop_nulls())
    counts.pop("", None)
    return sorted(counts, key=lambda value: (-counts[value], value))


def _read_scaling(fields: Mapping[str, Any], name: str) -> Scaling:
    scaling = Scaling(**{key: float(value) for key, value in fields[name].items()})
    is_ordered = scaling.std > 0 and scaling.low <= scaling.median <= scaling.high
    if not (np.isfinite(list(asdict(scaling).values())).all() and is_ordered):
        msg = f"{name} needs finite numbers, a positive std and low <= high: found {scaling}"
        raise ValueError(msg)
    return scaling


def _read_categories(fields: Mapping[str, Sequence[str]], name: str) -> tuple[str, ...]:
    known = tuple(fields[name])
    if list(known) != sorted(set(known)):
        msg = f"{name} needs distinct categories in sorted order: found {len(known)}, which aren't"
        raise ValueError(msg)
    return known
