"""How rows of the fused manifest are merged: the contract's rule, and the same result by splicing.

The rule sorts everything. A manifest that a merge has left is sorted and unique already, so only
the places of the new rows have to be found in it, and it can be gone through piece by piece.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

KEY: Final = ("video_id", "source_hash")
# The contract's order, with `text_present` before `fused_key`: an older deployment's shards lie
# under the day of the run, which may be later than the day of capture that ours lie under, and a
# placeholder must not win over the full row that replaced it.
_ORDER: Final = (*KEY, "captured_at", "text_present", "fused_key")


class NotMerged(ValueError):  # noqa: N818 - a state of the rows
    """The rows aren't what a merge leaves, so that nothing can be spliced into them."""


def latest(tables: Sequence[pa.Table], lost: Collection[str] = ()) -> pa.Table:
    """The rule: concatenate, sort by `_ORDER`, keep the last row of each `KEY`.

    Source: the fusion contract, section 8.2.

    Args:
        tables: One or more, of one schema, which is that of the result.
        lost: Shards that are gone from the store: a row that leads to one gives way to any that
            doesn't, whatever their order, and stays where there is no other.
    """
    everything = pl.DataFrame(pa.concat_tables(tables))
    there = ~pl.col("fused_key").is_in(list(lost))
    order = [*KEY, *([there] if lost else []), *_ORDER[len(KEY) :]]
    kept = everything.sort(order, nulls_last=False, maintain_order=True).unique(
        subset=list(KEY), keep="last", maintain_order=True
    )
    return kept.to_arrow().cast(tables[0].schema)


def spliced(
    chunks: Iterable[pa.Table], new: pa.Table, lost: Collection[str] = ()
) -> Iterator[pa.Table]:
    """`latest` of everything, piece by piece; pieces without new rows pass as they are.

    Args:
        chunks: Tables that are, one after the other, sorted by `KEY` and unique in it.
        new: Rows in any order, of the same schema.
        lost: As of `latest`.

    Raises:
        NotMerged: Some rows aren't so, or have no key; possibly after some pieces.
    """
    new = latest([new], lost)
    new_keys = _Keys.of(new)
    done, last = 0, None
    for chunk in chunks:
        if not chunk.num_rows:
            continue
        keys = _Keys.of(chunk)
        if (last and not last.before(keys.slice(0, 1)).all()) or not keys.increasing():
            msg = f"rows must be sorted by {', '.join(KEY)} and unique in them"
            raise NotMerged(msg)
        last = keys.slice(len(keys) - 1, 1)
        end = int(new_keys.after(last)[0])
        fresh, fresh_keys = (each.slice(done, end - done) for each in (new, new_keys))
        yield _with(chunk, keys, fresh, fresh_keys, lost)
        done = end
    if done < new.num_rows:
        yield new.slice(done)


def _with(
    chunk: pa.Table, keys: "_Keys", new: pa.Table, new_keys: "_Keys", lost: Collection[str]
) -> pa.Table:
    """One piece with its new rows, which are sorted and unique and no greater than its last."""
    if not new.num_rows:
        return chunk
    at = keys.after(new_keys, or_at=True)
    known = ~new_keys.before(keys.take(at))
    rows = latest([chunk.take(pa.array(at[known])), new], lost)
    # As many rows as there are new ones: of the keys that both have, the one that wins.
    places = np.arange(chunk.num_rows, chunk.num_rows + rows.num_rows)
    order = np.arange(chunk.num_rows)
    order[at[known]] = places[known]
    order = np.insert(order, at[~known], places[~known])
    return pa.concat_tables([chunk, rows]).combine_chunks().take(pa.array(order))


@dataclass(frozen=True)
class _Keys:
    """The columns of `KEY` as arrays of one length; compared by their UTF-8 bytes, as sorted."""

    columns: tuple[pa.Array, ...]

    @classmethod
    def of(cls, table: pa.Table) -> "_Keys":
        columns = []
        for name in KEY:
            column = table.column(name)
            if column.null_count:
                msg = f"{name} of {column.null_count} rows is empty"
                raise NotMerged(msg)
            columns.append(pa.concat_arrays(column.chunks or [pa.array([], column.type)]))
        return cls(tuple(columns))

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, indices: NDArray[np.int64]) -> "_Keys":
        return _Keys(tuple(column.take(pa.array(indices)) for column in self.columns))

    def slice(self, start: int, length: int) -> "_Keys":
        return _Keys(tuple(column.slice(start, length) for column in self.columns))

    def before(self, others: "_Keys") -> NDArray[np.bool_]:
        """For each key whether it is less than the other one at its place; shape ``(n,)``."""
        (video, source), (other_video, other_source) = self.columns, others.columns
        less: NDArray[np.bool_] = pc.or_(
            pc.less(video, other_video),
            pc.and_(pc.equal(video, other_video), pc.less(source, other_source)),
        ).to_numpy(zero_copy_only=False)
        return less

    def increasing(self) -> bool:
        rest = max(len(self) - 1, 0)
        return bool(self.slice(0, rest).before(self.slice(1, rest)).all())

    def after(self, wanted: "_Keys", *, or_at: bool = False) -> NDArray[np.int64]:
        """For each wanted key the first place of a greater one, or of an equal one with `or_at`.

        A binary search of all at once, in keys that increase; shape ``(len(wanted),)``.
        """
        low = np.zeros(len(wanted), np.int64)
        high = np.full(len(wanted), len(self), np.int64)
        while len(open_ := np.flatnonzero(low < high)):
            middle = (low[open_] + high[open_]) // 2
            found, asked = self.take(middle), wanted.take(open_)
            right = found.before(asked) if or_at else ~asked.before(found)
            low[open_[right]] = middle[right] + 1
            high[open_[~right]] = middle[~right]
        return low
