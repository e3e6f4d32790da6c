"""Rows as batches: of tensors in memory, or of a stream that is never held as a whole."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

Inputs: TypeAlias = Mapping[str, Tensor]
"""What a network is called with, ``network(**inputs)``: tensors of b rows each, by argument."""

Batch: TypeAlias = tuple[Inputs, Tensor]
"""Inputs and target ``(b, ...)`` of the same b >= 1 rows."""

R = TypeVar("R")


class StreamChanged(ValueError):  # noqa: N818 - says what happened
    """A stream gave another number of rows than it was said to have."""


class Batches(Protocol):
    """Rows of one part (train, val), to be gone through once an epoch."""

    @property
    def rows(self) -> int:
        """How many rows an epoch has."""

    @property
    def batch_size(self) -> int:
        """Most rows of a batch."""

    def epoch(self, order: torch.Generator) -> Iterator[Batch]:
        """All rows, each once.

        Args:
            order: Decides their order, and nothing else does: two generators of the same state
                give the same batches.
        """

    def identity(self) -> str:
        """Names the rows and how they are batched, for checkpoints to be told apart by.

        Asked for only where a fit has a checkpoint.
        """


@dataclass(frozen=True, eq=False)
class InMemory:
    """Tensors of N rows.

    Attributes:
        inputs: N rows each.
        target: ``(N, ...)``.
        batch_size: Rows of a batch; the last one may be smaller.
        shuffle: Anew each epoch; otherwise they stay in order.
        part: How errors name the rows.

    Raises:
        ValueError: There are no rows, or inputs and target differ in their number.
    """

    inputs: Inputs
    target: Tensor
    batch_size: int
    shuffle: bool = True
    part: str = "train"

    def __post_init__(self) -> None:
        """Check the lengths."""
        _check_sizes(self.part, len(self.target), self.batch_size)
        counts = {key: len(value) for key, value in self.inputs.items()}
        if set(counts.values()) != {len(self.target)}:
            msg = (
                f"the {self.part} part has {len(self.target)} targets and inputs of other "
                f"lengths: {counts}"
            )
            raise ValueError(msg)

    @property
    def rows(self) -> int:
        """N."""
        return len(self.target)

    def epoch(self, order: torch.Generator) -> Iterator[Batch]:
        """See `Batches`."""
        starts = range(0, self.rows, self.batch_size)
        every: Iterable[Tensor | slice] = (slice(at, at + self.batch_size) for at in starts)
        if self.shuffle:
            every = torch.randperm(self.rows, generator=order).split(self.batch_size)
        for rows in every:
            yield {key: value[rows] for key, value in self.inputs.items()}, self.target[rows]

    def identity(self) -> str:
        """The hash of the tensors, with batch size and order."""
        tensors = {f"input {key}": value for key, value in self.inputs.items()}
        order = "shuffled" if self.shuffle else "in order"
        values = tensors_hash({**tensors, "target": self.target})
        return f"{values}, batches of {self.batch_size}, {order}"


def stack_rows(rows: Sequence[tuple[Mapping[str, Tensor], Tensor]]) -> Batch:
    """Rows ``(inputs by argument, target)`` of equal shapes, without a batch dimension, stacked."""
    inputs = {key: torch.stack([row[key] for row, _ in rows]) for key in rows[0][0]}
    return inputs, torch.stack([target for _, target in rows])


@dataclass(frozen=True, eq=False)
class StreamedBatches(Generic[R]):
    """Rows read anew each epoch; at most ``shuffle_buffer + batch_size`` of them are held.

    With a buffer of all rows their order is that of `InMemory`, bit for bit; without a buffer it
    is the stream's own.

    Attributes:
        make_rows: Gives the rows of an epoch. A source may draw from the generator, e.g. the order
            of its shards; nothing else may make two epochs differ.
        rows: How many it gives.
        batch_size: Rows of a batch; the last one may be smaller.
        shuffle_buffer: How many rows the next one is drawn from; 0 leaves them in order.
        collate: Makes a batch of rows; by default `stack_rows`.
        source: Names what the rows are, e.g. the hash of the shard index. A fit with a checkpoint
            needs it: it must differ wherever the rows do.
        part: How errors name the rows.
        shuffle_bytes: How many bytes the rows of the buffer may have together; fewer are held where
            rows are large, one at least. None for no bound.
        size_of: Bytes of a row; needed for `shuffle_bytes`.

    Raises:
        ValueError: There are no rows, or `shuffle_bytes` has no `size_of`.
        StreamChanged: On iterating: the stream has more or fewer rows.
    """

    make_rows: Callable[[torch.Generator], Iterable[R]]
    rows: int
    batch_size: int
    shuffle_buffer: int = 0
    collate: Callable[[Sequence[R]], Batch] = stack_rows  # type: ignore[assignment]
    source: str = ""
    part: str = "train"
    shuffle_bytes: int | None = None
    size_of: Callable[[R], int] | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        _check_sizes(self.part, self.rows, self.batch_size)
        if self.shuffle_buffer < 0:
            msg = f"shuffle_buffer must be 0 (in order) or more, not {self.shuffle_buffer}"
            raise ValueError(msg)
        if self.shuffle_bytes is not None and (self.size_of is None or self.shuffle_bytes < 1):
            msg = f"shuffle_bytes must be 1 or more and have `size_of`, not {self.shuffle_bytes}"
            raise ValueError(msg)

    def epoch(self, order: torch.Generator) -> Iterator[Batch]:
        """See `Batches`."""
        batch: list[R] = []
        for row in self._shuffled(self._counted(self.make_rows(order)), order):
            batch.append(row)
            if len(batch) == self.batch_size:
                yield self.collate(batch)
                batch = []
        if batch:
            yield self.collate(batch)

    def identity(self) -> str:
        """The source's name, with sizes.

        Raises:
            ValueError: It has none.
        """
        if not self.source:
            msg = (
                f"the {self.part} part is a stream without a `source`: a fit with a checkpoint "
                "needs one, e.g. the hash of the shard index, to know its own rows by"
            )
            raise ValueError(msg)
        sizes = f"{self.rows} rows, batches of {self.batch_size}, buffer of {self.shuffle_buffer}"
        if self.shuffle_bytes is not None:
            sizes += f" and {self.shuffle_bytes} bytes"
        return f"{self.source}, {sizes}"

    def _counted(self, rows: Iterable[R]) -> Iterator[R]:
        count = 0
        for count, row in enumerate(rows, start=1):
            if count > self.rows:
                break
            yield row
        if count != self.rows:
            found = f"{count} rows" if count < self.rows else "more"
            msg = (
                f"the stream of the {self.part} part gave {found}, expected {self.rows}: count the "
                "rows again, and leave out what can't be read before the fit"
            )
            raise StreamChanged(msg)

    def _shuffled(self, rows: Iterator[R], order: torch.Generator) -> Iterator[R]:
        """Each row that comes takes the place of a random one of the buffer, which goes out."""
        if self.shuffle_buffer == 0:
            yield from rows
            return
        buffer: list[R] = []
        held = 0
        for row in rows:
            held += self._size(row)
            if len(buffer) < self.shuffle_buffer:
                buffer.append(row)
            else:
                place = int(torch.randint(len(buffer), (), generator=order))
                leaving, buffer[place] = buffer[place], row
                held -= self._size(leaving)
                yield leaving
            while self.shuffle_bytes is not None and held > self.shuffle_bytes and len(buffer) > 1:
                place = int(torch.randint(len(buffer), (), generator=order))
                buffer[place], buffer[-1] = buffer[-1], buffer[place]
                leaving = buffer.pop()
                held -= self._size(leaving)
                yield leaving
        for place in torch.randperm(len(buffer), generator=order).tolist():
            yield buffer[place]

    def _size(self, row: R) -> int:
        return self.size_of(row) if self.size_of is not None else 0


def tensors_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bits of `tensors`, whatever their order."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def non_finite(tensors: Mapping[str, Any]) -> str:
    """Names those of `tensors` that are not finite, as the end of a sentence."""
    names = [
        key
        for key, value in tensors.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    return f" (values that are not finite: {', '.join(names)})" if names else ""


def _check_sizes(part: str, rows: int, batch_size: int) -> None:
    if rows < 1:
        msg = f"the {part} part has no rows: expected at least one"
        raise ValueError(msg)
    if batch_size < 1:
        msg = f"a batch of the {part} part has one row or more, not {batch_size}"
        raise ValueError(msg)
