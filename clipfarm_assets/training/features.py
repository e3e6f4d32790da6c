"""From the text of the metadata CSV to the columns that a feature contract names."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.features import Column, FeatureContract, Kind
from clipfarm_assets.contracts.horizon_csv import parse_captured_at
from clipfarm_assets.contracts.leakage import AVAILABILITY, DERIVED, source_columns

LARGEST: Final = 1e15
"""No count, length or age is beyond it, and squares of it can still be summed in float32."""

_US_PER_HOUR: Final = 3_600_000_000
_US_PER_DAY: Final = 24 * _US_PER_HOUR
_EPOCH_WEEKDAY: Final = 3
"""1970-01-01 was a Thursday; Monday is 0."""


class MissingColumns(ValueError):  # noqa: N818
    """The rows lack columns that the features of the contract are made of."""


@dataclass(frozen=True)
class ParsedFeatures:
    """Features of N rows.

    Attributes:
        metadata: ``(N,)`` rows: Float64 for numeric features (booleans are 0 and 1), String for
            categorical ones, in the contract's order; null is missing.
        unparsable: CSV column -> number of values that are there but are none of its kind, and
            count as missing; columns without any are left out.
    """

    metadata: pl.DataFrame
    unparsable: Mapping[str, int]


def metadata_features(rows: pl.DataFrame, contract: FeatureContract) -> ParsedFeatures:
    """The contract's features of N rows of the CSV.

    An empty (or blank) value is missing; one that is there but isn't a finite number within
    ±`LARGEST`, ``True``/``False``/``1``/``0`` in any case, or an ISO 8601 time, is counted.

    Args:
        rows: Columns of the CSV as text, N rows.
        contract: Which features.

    Raises:
        MissingColumns: A column that the contract needs is not there.
    """
    needed = source_columns(contract)
    _check_present(rows, needed)
    unparsable: dict[str, int] = {}
    features: dict[str, pl.Series] = {}
    for name in needed:
        column = AVAILABILITY.get(name) or contract.declared[name]
        texts = _stripped(rows[name])
        features[name] = _PARSERS[column.kind](texts)
        lost = features[name].null_count() - texts.null_count()
        if lost:
            unparsable[name] = lost
    for name in DERIVED:
        if name in contract.numeric:
            features[name] = _derived(name, features)
    return ParsedFeatures(
        metadata=pl.DataFrame([features[name].alias(name) for name in contract.features]),
        unparsable=MappingProxyType(unparsable),
    )


def outcome_columns(
    rows: pl.DataFrame, declared: Mapping[str, Column] = MappingProxyType({})
) -> pl.DataFrame:
    """The numeric columns of the CSV that are known only after the outcome, Float64, N rows.

    Args:
        rows: Columns of the CSV as text, N rows; an older file lacks some.
        declared: Columns beyond the contract's, of which some may be such.

    Returns:
        Those that `rows` has, in the contract's order, then by name; what is missing or is no
        number is null. For the leakage probe alone.
    """
    known = {**AVAILABILITY, **dict(sorted(declared.items()))}
    return pl.DataFrame(
        [
            _numbers(_stripped(rows[name])).alias(name)
            for name, column in known.items()
            if column.availability == "after_outcome"
            and column.kind == "numeric"
            and name in rows.columns
        ]
    )


def published_at(rows: pl.DataFrame) -> NDArray[np.datetime64]:
    """When N clips were published: datetime64[us] in UTC ``(N,)``, NaT where unknown."""
    return moments(rows, "published_at")


def captured_at(rows: pl.DataFrame) -> NDArray[np.datetime64]:
    """When N rows were captured: datetime64[us] in UTC ``(N,)``, NaT where unknown."""
    return moments(rows, "captured_at")


def moments(rows: pl.DataFrame, column: str) -> NDArray[np.datetime64]:
    """A column of ISO 8601 times as datetime64[us] in UTC ``(N,)``; NaT where it is none.

    Raises:
        MissingColumns: It is not there.
    """
    _check_present(rows, (column,))
    times: NDArray[np.datetime64] = (
        _times(_stripped(rows[column])).to_numpy().astype("datetime64[us]")
    )
    return times


def _check_present(rows: pl.DataFrame, needed: tuple[str, ...]) -> None:
    lacking = [name for name in needed if name not in rows.columns]
    if lacking:
        msg = (
            f"expected metadata rows with the columns {', '.join(needed)}, found {rows.width} "
            f"columns without {', '.join(lacking)}: give them (empty where unknown)"
        )
        raise MissingColumns(msg)


def _stripped(texts: pl.Series) -> pl.Series:
    """Without surrounding blanks; what is empty then is null."""
    stripped = texts.cast(pl.String).str.strip_chars()
    return stripped.set(stripped == "", None)


def _numbers(texts: pl.Series) -> pl.Series:
    # Of what float() takes, the cast leaves out 1_000 and other scripts' digits; not inf and nan.
    numbers = texts.cast(pl.Float64, strict=False)
    return numbers.set(~(numbers.is_finite() & (numbers.abs() <= LARGEST)), None)


def _booleans(texts: pl.Series) -> pl.Series:
    known = {"true": 1.0, "1": 1.0, "false": 0.0, "0": 0.0}
    return texts.str.to_lowercase().replace_strict(known, default=None, return_dtype=pl.Float64)


def _times(texts: pl.Series) -> pl.Series:
    """Naive UTC moments in microseconds."""
    parsed = [
        moment.replace(tzinfo=None) if text and (moment := parse_captured_at(text)) else None
        for text in texts
    ]
    return pl.Series(texts.name, parsed, dtype=pl.Datetime("us"))


_PARSERS: Final[Mapping[Kind, Callable[[pl.Series], pl.Series]]] = {
    "numeric": _numbers,
    "boolean": _booleans,
    "categorical": lambda texts: texts,
    "time": _times,
}
"""What makes a feature, or the source of one, of stripped texts; no other kind of column does."""


def _derived(name: str, times: Mapping[str, pl.Series]) -> pl.Series:
    published = times["published_at"].to_physical()
    if name == "published_hour":
        values = published % _US_PER_DAY // _US_PER_HOUR
    elif name == "published_dayofweek":
        values = (published // _US_PER_DAY + _EPOCH_WEEKDAY) % 7
    else:
        values = (published - times["channel_created_at"].to_physical()) / _US_PER_DAY
    return values.cast(pl.Float64)
