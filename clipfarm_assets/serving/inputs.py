"""What callers hand to a predictor, checked for its form before anything is made of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from clipfarm_assets.contracts.statuses import MODALITIES, Modality
from clipfarm_assets.serving.binding import BindingMismatch

Rows = Sequence[Mapping[str, str]] | pl.DataFrame
"""Columns of the metadata CSV as text; empty where unknown."""

File = bytes | Path | str
"""A file's bytes, or where to read it."""


def text_rows(rows: Rows, columns: Sequence[str], feature_set: str) -> pl.DataFrame:
    """The columns needed of N rows, as text; null is empty.

    Args:
        rows: Other columns are not looked at.
        columns: Those needed.
        feature_set: For which, for the message.

    Raises:
        BindingMismatch: A column is missing from a row, or is no text.
        TypeError: It is no sequence of rows.
    """
    _check_rows(rows)
    if isinstance(rows, pl.DataFrame):
        lacking = {name for name in columns if name not in rows.columns}
    else:
        lacking = {name for name in columns for row in rows if name not in row}
    if lacking:
        msg = (
            f"the model is bound to feature set {feature_set}, for which a row needs "
            f"{', '.join(name for name in columns if name in lacking)}: give them as the metadata "
            "CSV has them, empty where unknown"
        )
        raise BindingMismatch(msg)
    remedy = "give them as they are written there"
    if isinstance(rows, pl.DataFrame):
        frame = rows.select(columns)
        wrong = [
            f"{name} ({dtype})"
            for name, dtype in frame.schema.items()
            if dtype not in {pl.String, pl.Null}
        ]
        remedy = "read the file with pl.read_csv(..., infer_schema=False)"
    else:
        values = {name: [row[name] for row in rows] for name in columns}
        wrong = [name for name, given in values.items() if any(map(_is_no_text, given))]
        frame = pl.DataFrame({} if wrong else values, dict.fromkeys(columns, pl.String))
    if wrong:
        msg = (
            f"expected metadata as the CSV's text, found other values in {', '.join(wrong)}: "
            f"{remedy}"
        )
        raise BindingMismatch(msg)
    return frame.with_columns(pl.all().cast(pl.String).fill_null(""))


def text_mask(given: Sequence[bool] | NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
    """Whether each clip has text, bool ``(rows,)``.

    Raises:
        ValueError: It isn't one truth value a row; numbers are none.
    """
    try:
        mask = np.asarray(given)
    except ValueError:  # lists of different lengths
        mask = np.asarray(given, dtype=object)
    if mask.dtype != np.bool_ or mask.shape != (rows,):
        msg = (
            f"text_present must be bool ({rows},), one a row: found {mask.dtype} {mask.shape}; "
            "give a list of True and False, or an array of dtype bool"
        )
        raise ValueError(msg)
    return mask


def check_modalities(what: str, given: Mapping[Modality, object]) -> None:
    """Refuse keys that name no modality: what is under them would not be looked at.

    Raises:
        BindingMismatch: Names them.
    """
    unknown = [repr(name) for name in given if name not in MODALITIES]
    if unknown:
        msg = (
            f"expected {what} of {', '.join(MODALITIES)}, found unknown modality "
            f"{', '.join(unknown)}: name it as one of them"
        )
        raise BindingMismatch(msg)


def raw_file(modality: Modality, given: object) -> bytes | Path:
    """A raw file as bytes, or where to read it; text is a path.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(given, str):
        return Path(given)
    if isinstance(given, bytes | Path):
        return given
    msg = f"expected {modality} as a file's bytes or its path, found {type(given).__name__}"
    raise TypeError(msg)


def _check_rows(rows: object) -> None:
    if isinstance(rows, Mapping):
        msg = "expected a sequence of rows, found one row: put it in a list"
        raise TypeError(msg)
    if isinstance(rows, pl.DataFrame):
        return
    if isinstance(rows, str) or not isinstance(rows, Sequence):
        msg = (
            f"expected a sequence of rows or a polars DataFrame, found {type(rows).__name__}: "
            "give a list with a mapping of column to text for each clip"
        )
        raise TypeError(msg)
    wrong = [position for position, row in enumerate(rows) if not isinstance(row, Mapping)]
    if wrong:
        msg = (
            "expected each row as a mapping of column to text, found "
            f"{type(rows[wrong[0]]).__name__} as row {wrong[0]} ({len(wrong)} of {len(rows)} rows)"
        )
        raise TypeError(msg)


def _is_no_text(value: object) -> bool:
    return value is not None and not isinstance(value, str)
