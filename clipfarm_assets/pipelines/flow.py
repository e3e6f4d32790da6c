"""Moving items through workers with bounded memory and in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Condition
from typing import Final, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

Admit = Callable[[bool], bool]
"""Whether one more item may be taken; given True it first waits until one may."""

_RECENT: Final = 64
_SHARES: Final = 16


def ordered_map(
    work: Callable[[In], Out],
    items: Iterable[In],
    *,
    workers: int,
    ahead: int,
    admit: Admit | None = None,
    give_up: Callable[[], None] | None = None,
) -> Generator[Out, None, None]:
    """Map in threads, yield in input order, hold at most `ahead` results or running items.

    Unlike ``ThreadPoolExecutor.map`` it doesn't take all of `items` at once, so memory is set by
    `ahead` and not by their number. An exception of `work`, or of `items` themselves, is raised
    where its result would come, after the results before it; what has not started by then never
    does. So stages can be chained, each pulling from the one before; all are driven by the thread
    that consumes the last one, and only `work` runs in others. Wrap each in
    ``contextlib.closing`` where the consumer may raise: the threads live until the generator is
    closed.

    Args:
        work: Called in a worker thread with one item.
        items: Taken one by one, in the consumer's thread.
        workers: Threads.
        ahead: Items taken and not yet yielded.
        admit: Asked before an item is taken, if something else than `ahead` limits how many may
            be. It is told to wait only if nothing is running or ready that could be yielded.
        give_up: Called if the generator ends before `items` do, by an error, an interrupt or being
            closed: to end `work` that would be waited for in vain.
    """
    source = iter(items)
    running: deque[Future[Out]] = deque()
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="clipfarm")
    ended = is_done = False
    failure: Exception | None = None

    def fill() -> None:
        nonlocal ended, failure
        while not ended and len(running) < max(ahead, 1):
            if admit is not None and not admit(not running):
                if not running:  # nothing would ever be taken again, and items silently lost
                    msg = "admit was to wait until one more item may be taken, and answered no"
                    raise RuntimeError(msg)
                return
            try:
                item = next(source)
            except StopIteration:
                ended = True
            except Exception as error:  # noqa: BLE001 - raised below, in its place
                ended, failure = True, error
            else:
                running.append(pool.submit(work, item))

    try:
        fill()
        while running:
            result = [running.popleft().result()]
            if running or admit is None:
                fill()  # before the consumer is given its turn, so that workers have theirs
            yield result.pop()  # keeps no reference: an item may be large
            if not running:
                fill()
        if failure is not None:
            raise failure
        is_done = True
    finally:
        if give_up is not None and not is_done:
            give_up()
        pool.shutdown(wait=True, cancel_futures=True)


def one_behind(work: Callable[[In], Out], items: Iterable[In]) -> Generator[Out, None, None]:
    """Map in one thread while the next item is made, and yield each result before the next begins.

    So of three steps, making an item, `work` and what the consumer does with a result, the first
    and the second are side by side, and no item is in work whose predecessor isn't finished with.
    An exception is raised in its place, one of `items` after the results before it. Wrap it in
    ``contextlib.closing`` where the consumer may raise.
    """
    source, running = iter(items), None
    failure: Exception | None = None
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="clipfarm") as pool:
        while failure is None:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below, in its place
                failure = error
            else:
                if running is not None:
                    yield running.result()
                running = pool.submit(work, item)
        if running is not None:
            try:
                last = running.result()
            except Exception as error:
                if failure is not None:
                    error.add_note(f"And what was to come next failed: {failure!r}")
                raise
            yield last
    if failure is not None:
        raise failure


def batched(items: Iterable[In], size: int) -> Iterator[list[In]]:
    """Consecutive lists of at most `size` items."""
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def grouped(items: Iterable[In], size: int) -> Generator[list[In], None, None]:
    """Like `batched`, but what came before an error of `items` is given out before it."""
    group: list[In] = []
    try:
        for item in items:
            group.append(item)
            if len(group) == size:
                yield group
                group = []
    except Exception:
        if group:
            yield group
        raise
    if group:
        yield group


class ByteBudget:
    """Bounds the bytes that are between being fetched and being used up.

    An object's size is known only once it is there. Until then it counts as the largest of the
    last `_RECENT` objects. Before any was seen the first request travels alone; where it found
    nothing, as clips that wait for their objects do, the next ones count as a share of the limit.
    So what is in flight exceeds the limit by one object at most, unless several at once are larger
    than all of those before. An object above the limit waits until nothing else is in flight, and
    passes.

    Thread-safe. Every object that is fetched is followed by one `arrived`, and that by one
    `release` of as many bytes, also where there is none, of 0 bytes.
    """

    def __init__(self, limit: int) -> None:
        """Allow `limit` bytes."""
        self._limit = limit
        self._changed = Condition()
        self._expected = 0  # objects on their way
        self._arrived = 0  # objects that are here
        self._held = 0  # their bytes
        self._unknown = limit  # what an object counts as before any was seen
        self._recent: deque[int] = deque(maxlen=_RECENT)

    def admit(self, wait: bool) -> bool:
        """Whether one more object may be fetched; see `Admit`."""
        with self._changed:
            if wait:
                self._changed.wait_for(self._has_room)
            elif not self._has_room():
                return False
            self._expected += 1
            return True

    def arrived(self, size: int) -> None:
        """An object that was admitted is here, of `size` bytes; 0 if there is none."""
        with self._changed:
            self._expected -= 1
            self._arrived += 1
            self._held += size
            if size:
                self._recent.append(size)
            else:
                self._unknown = self._limit // _SHARES
            self._changed.notify_all()

    def release(self, size: int) -> None:
        """An object that arrived is used up."""
        with self._changed:
            self._arrived -= 1
            self._held -= size
            self._changed.notify_all()

    def _has_room(self) -> bool:
        if self._expected + self._arrived == 0:
            return True
        each = max(self._recent, default=self._unknown)
        return self._held + (self._expected + 1) * each <= self._limit
