"""Many operations at once, in threads where that pays: in order, bounded, over when closed."""

import resource
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


# An item that takes the caller's thread longer than this is better waited for in several threads:
# where a disk was read, and where only time tells, as with file servers. Then it may also have been
# other threads that held the interpreter.
_PATIENCE_DISK_SECONDS: Final = 0.00025
_PATIENCE_SECONDS: Final = 0.002
# Linux tells it of one thread; elsewhere all are told together, and threads are used too often.
_USAGE: Final = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)


@dataclass(frozen=True, slots=True)
class Lanes:
    """How work is spread over threads.

    Attributes:
        threads: Threads at most.
        window: Items at most that are taken from the caller and not yet given back as results.
        chunk: Items that a thread takes together: more than one where handing an item to a thread
            costs as much as doing it.
        at_once: Work in the caller's own thread as long as nothing has to be waited for, neither a
            disk nor a file server. Handing over costs more than such work does, and each of its
            system calls gives the interpreter to another thread and waits to have it back.
    """

    threads: int
    window: int
    chunk: int
    at_once: bool = False

    @classmethod
    def of(cls, workers: int, most_threads: int | None = None, *, at_once: bool = False) -> "Lanes":
        """A window of ``2 * workers``, in `workers` threads or in `most_threads` if those are less.

        Raises:
            ValueError: Fewer than one worker.
        """
        if workers < 1:
            msg = f"workers must be 1 or more, not {workers}"
            raise ValueError(msg)
        threads = min(workers, most_threads or workers)
        # Two chunks a thread fill the window: one in work, one that waits or is being given back.
        return cls(threads, 2 * workers, workers // threads, at_once)


def in_order(
    work: Callable[[In], Out],
    items: Iterable[In],
    lanes: Lanes,
    apart: Callable[[In], Hashable] | None = None,
) -> Generator[Out, None, None]:
    """Map `work` over `items`, in threads as `lanes` says, and yield the results in order.

    ``ThreadPoolExecutor.map`` takes all items at once; and a future an item costs more processor
    time than a small request does, so here a thread goes on to the next chunk by itself.

    Args:
        work: Called in threads, or in the caller's, see `Lanes.at_once`.
        items: Read in the caller's thread, as room comes free.
        lanes: Bounds.
        apart: Items for which this is equal are never in work side by side, but in their order.

    Yields:
        What `work` gives for each item.

    Raises:
        Exception: What `work` raised, at its item's place; or what `items` raised, after the
            results of all items before. Nothing new begins then, nor when the generator is closed;
            what runs is waited for.
    """
    source = _Source(items, apart)
    crew = _Crew(work, lanes.threads)
    jobs: deque[_Job[In, Out]] = deque()
    held = 0
    waits = not lanes.at_once
    try:
        while True:
            while held + lanes.chunk <= lanes.window and (chunk := source.take(lanes.chunk)):
                held += len(chunk)
                jobs.append(_Job(chunk))
            if not jobs:
                break
            if waits:
                for waiting in jobs:
                    crew.start(waiting)
            job = jobs.popleft()
            if not job.started:
                crew.do(job)
            job.finished.acquire()
            waits = job.waited or not lanes.at_once
            # Both are emptied while they are given back: nothing here keeps what the caller has.
            while job.results:
                source.release(job.items.popleft())
                held -= 1
                yield job.results.popleft()
            if job.error is not None:
                try:
                    raise job.error
                finally:
                    del job  # its error's traceback leads here: a circle that keeps all objects
        if source.error is not None:
            raise source.error
    finally:
        crew.dismiss()


class _Source(Generic[In]):
    """Items in chunks, none that is equal to one not yet released."""

    def __init__(self, items: Iterable[In], apart: Callable[[In], Hashable] | None) -> None:
        self._items = iter(items)
        self._apart = apart
        self._busy: set[Hashable] = set()
        self._kept_back: list[In] = []
        self.error: Exception | None = None

    def take(self, most: int) -> deque[In]:
        """The next items; fewer than `most` at the end, or before one that has to wait."""
        chunk: deque[In] = deque()
        while len(chunk) < most and self.error is None:
            try:
                item = self._kept_back.pop() if self._kept_back else next(self._items)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised by in_order, at its place
                self.error = error
                break
            if self._apart is not None:
                mark = self._apart(item)
                if mark in self._busy:
                    self._kept_back.append(item)
                    break
                self._busy.add(mark)
            chunk.append(item)
        return chunk

    def release(self, item: In) -> None:
        """`item` is done."""
        if self._apart is not None:
            self._busy.remove(self._apart(item))


class _Job(Generic[In, Out]):
    """A chunk of items, and their results up to the first error."""

    __slots__ = ("error", "finished", "items", "results", "started", "waited")

    def __init__(self, items: deque[In]) -> None:
        self.items = items
        self.results: deque[Out] = deque()
        self.error: BaseException | None = None
        self.started = False
        self.waited = False
        # A bare lock is the cheapest thing that one thread can wait for and another set.
        self.finished = threading.Lock()
        self.finished.acquire()


class _Crew(Generic[In, Out]):
    """Threads that take jobs from one queue, each as long as there are any."""

    def __init__(self, work: Callable[[In], Out], threads: int) -> None:
        self._work = work
        self._threads = threads
        # The executor ends its threads when the interpreter ends, whoever forgot to.
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="objects")
        self._lock = threading.Lock()
        self._waiting: deque[_Job[In, Out]] = deque()
        self._active = 0
        self._dismissed = threading.Event()

    def start(self, job: _Job[In, Out]) -> None:
        """Have `job` done by the next thread that is free, unless it is started already."""
        if job.started:
            return
        job.started = True
        with self._lock:
            self._waiting.append(job)
            more = self._active < self._threads
            self._active += more
        if more:
            self._pool.submit(self._run)

    def dismiss(self) -> None:
        """Begin nothing more, and wait for the threads to end."""
        self._dismissed.set()
        self._pool.shutdown(cancel_futures=True)

    def do(self, job: _Job[In, Out]) -> None:
        """Do `job` in this thread."""
        job.started = True
        inputs, begun = _inputs(), time.perf_counter()
        try:
            for item in job.items:
                if self._dismissed.is_set():
                    break
                job.results.append(self._work(item))
        except BaseException as error:  # noqa: BLE001 - raised by in_order, at its place
            job.error = error
        finally:
            seconds = time.perf_counter() - begun
            patience = _PATIENCE_DISK_SECONDS if _inputs() > inputs else _PATIENCE_SECONDS
            job.waited = seconds > patience * len(job.items)
            job.finished.release()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self.do(job)

    def _next(self) -> _Job[In, Out] | None:
        with self._lock:
            if self._waiting and not self._dismissed.is_set():
                return self._waiting.popleft()
            self._active -= 1
            return None


def _inputs() -> int:
    """How often a disk had to be read for this thread."""
    return resource.getrusage(_USAGE).ru_inblock
