"""Moving items through workers with bounded memory and in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(
    work: Callable[[In], Out], items: Iterable[In], *, workers: int, ahead: int
) -> Generator[Out, None, None]:
    """Map in threads, yield in input order, hold at most `ahead` results or running items.

    Unlike ``ThreadPoolExecutor.map`` it doesn't take all of `items` at once, so memory is set by
    `ahead` and not by their number. An exception of `work` is raised where its result would come;
    what has not started by then never does. Wrap it in ``contextlib.closing`` where the consumer
    may raise: the threads live until the generator is closed.
    """
    source = iter(items)
    running: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="clipfarm")
    try:
        running.extend(pool.submit(work, item) for item in islice(source, max(ahead, 1)))
        while running:
            result = running.popleft().result()
            for item in islice(source, 1):
                running.append(pool.submit(work, item))
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def batched(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Consecutive lists of at most `size` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch
