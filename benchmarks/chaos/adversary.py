"""The adversary: draws one disturbance after the other from a seed, and keeps count of them."""

import os
import random
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess

from benchmarks.chaos import worker
from benchmarks.chaos.census import Census
from benchmarks.chaos.worker import Place
from clipfarm_assets.contracts.fused_shard import FusedShard
from clipfarm_assets.contracts.manifest_file import ManifestFooter
from clipfarm_assets_tests.faulty_proxy import ENDLESS, PASSING, Call, Fault, Proxy
from clipfarm_assets_tests.servers import PostgresServer

FORK = get_context("forkserver")
_FAST = tuple(fault for fault in PASSING if fault not in ENDLESS)
_ENDED_SECONDS = 90.0
_LATE = 0.03
_LATEST_SECONDS = 1.5  # longer than a client waits
_LULL_SECONDS = 8.0
_CAUGHT = 4
_HELD_SECONDS = 20.0
_TRAPPED_SECONDS = 4.0
_RIVAL_SECONDS = 10.0
_CHANGED = 10
_REMEMBERED = 40


@dataclass
class Weather:
    """What befalls requests at the moment; see `faulty_proxy.Proxy.plan`."""

    draws: random.Random
    share: float = 0.0
    until: float = 0.0
    faults: tuple[Fault, ...] = _FAST
    counts: Counter[str] = field(default_factory=Counter)
    trap: str = ""
    caught: int = 0
    release: threading.Event = field(default_factory=threading.Event)

    def __call__(self, _call: Call) -> Fault | None:
        if time.monotonic() > self.until or self.draws.random() > self.share:
            return None
        fault = self.draws.choice(self.faults)
        self.counts[fault.name.lower()] += 1
        return fault

    def before(self, call: Call) -> None:
        """Hold a write that is waited for; others now and then come late."""
        if self.trap and call.method == "PUT" and self.trap in call.key and self.caught < _CAUGHT:
            self.caught += 1
            self.counts["held"] += 1
            self.release.wait(_HELD_SECONDS)
        else:
            self.delay(call)

    def delay(self, _call: Call) -> None:
        """Now and then a request comes late, or its answer; also after the client gave it up."""
        if time.monotonic() < self.until and self.draws.random() < _LATE:
            self.counts["late"] += 1
            time.sleep(self.draws.uniform(0.02, _LATEST_SECONDS))


@dataclass
class Adversary:
    """Acts on the workers of a place, its servers and its clips.

    Attributes:
        place: What the workers work on.
        census: The clips.
        proxy: Before the S3 server.
        database: The ledger's.
        draws: Decides what is next, and nothing of what others do.
        workers: How many work at a time.
        actions: How often each was done.
        last: The latest of them, with the second.
    """

    place: Place
    census: Census
    proxy: Proxy
    database: PostgresServer
    draws: random.Random
    workers: int
    actions: Counter[str] = field(default_factory=Counter)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    running: dict[int, ForkServerProcess] = field(default_factory=dict)
    commands: list[ForkServerProcess] = field(default_factory=list)
    asleep: dict[ForkServerProcess, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.weather = Weather(random.Random(self.draws.random()))
        self._order = random.Random(self.draws.random())  # of its own: details depend on the time
        self.proxy.plan = self.weather
        self.proxy.before, self.proxy.after = self.weather.before, self.weather.delay
        self._lull_until = float("inf")

    def start(self) -> None:
        """Let the workers begin."""
        for number in range(self.workers):
            self._start_worker(number)

    def act(self) -> None:
        """One disturbance; first those wake up whose time has come."""
        self._wake(time.monotonic())
        if time.monotonic() > self._lull_until:  # whoever was to end it was killed
            (self.place.folder / "lull").unlink(missing_ok=True)
        for number, process in list(self.running.items()):
            if process.exitcode is not None:  # it ends by being killed alone
                self.actions["worker ended by itself"] += 1
                self._start_worker(number)
        actions: list[tuple[Callable[[], str], int]] = [
            (self._kill, 6),
            (self._kill_command, 2),
            (self._suspend, 3),
            (self._overtake_embedding, 3),
            (self._overtake_merge, 3),
            (self._storm, 6),
            (self._outage, 1),
            (self._restart_database, 1),
            (self._add, 4),
            (self._change_source, 4),
            (self._capture_again, 2),
            (self._words_arrive, 3),
            (self._forget, 3),
            (self._gc, 2),
            (self._duel, 2),
        ]
        chosen = self._order.choices([a for a, _ in actions], [w for _, w in actions])[0]
        told = chosen()
        if told:
            name = chosen.__name__.strip("_").replace("_", " ")
            self.actions[name] += 1
            self.last.append(f"{time.monotonic() - self.begun:7.2f} s  {name}: {told}")

    def stop(self) -> list[str]:
        """End the disturbances, then the workers; those that had to be killed."""
        self.proxy.plan, self.proxy.dead, self.weather.until = None, False, 0.0
        self.weather.release.set()
        self._wake(float("inf"))
        (self.place.folder / "stop").touch()
        hung = []
        end = time.monotonic() + _ENDED_SECONDS
        for process in [*self.running.values(), *self.commands]:
            process.join(max(0.0, end - time.monotonic()))
            if process.exitcode is None:
                hung.append(f"{process.name} did not end within {_ENDED_SECONDS:g} s")
                process.kill()
                process.join()
        return hung

    def _start_worker(self, number: int) -> None:
        seed = self.draws.getrandbits(32)
        self.running[number] = self._begin(worker.work, self.place, number, seed, self.census.dates)

    def _begin(self, function: Callable[..., None], *arguments: object) -> ForkServerProcess:
        process = FORK.Process(target=function, args=arguments, name=function.__name__)
        process.start()
        return process

    def _kill(self) -> str:
        number = self.draws.randrange(self.workers)
        victim = self.running[number]
        victim.kill()
        victim.join()
        self.asleep.pop(victim, None)
        self._start_worker(number)
        return f"worker {number}, pid {victim.pid}"

    def _kill_command(self) -> str:
        living = [process for process in self.commands if process.exitcode is None]
        if not living:
            return ""
        victim = self.draws.choice(living)
        victim.kill()
        victim.join()
        return f"{victim.name}, pid {victim.pid}"

    def _suspend(self) -> str:
        """Longer than its leases hold."""
        number = self.draws.randrange(self.workers)
        victim = self.running[number]
        if victim in self.asleep or victim.pid is None or victim.exitcode is not None:
            return ""
        seconds = self.place.ttl_seconds * self.draws.uniform(1.2, 2.5)
        os.kill(victim.pid, signal.SIGSTOP)
        self.asleep[victim] = time.monotonic() + seconds
        return f"worker {number}, pid {victim.pid}, for {seconds:.1f} s"

    def _overtake_embedding(self) -> str:
        """Vectors are on their way; the sources change again, and another worker embeds those."""
        some = self.draws.sample(self.census.remaining, min(_CHANGED, len(self.census.remaining)))
        self._change_sources(some)

        def meanwhile() -> None:
            self._change_sources(some)
            seed = self.draws.getrandbits(32)
            rival = self._begin(worker.rival, self.place, seed, self.census.dates)
            self.commands.append(rival)
            rival.join(_RIVAL_SECONDS)

        return self._overtake("/embeddings/", meanwhile)

    def _overtake_merge(self) -> str:
        """A manifest is on its way; a clip of the latest shards is forgotten meanwhile."""

        def meanwhile() -> None:
            time.sleep(1.2 * self.place.ttl_seconds)  # else it is refused: they have the dates
            fresh = sorted(self._ids_in_unmerged_shards() & set(self.census.remaining))
            if fresh:
                self._begin_forgetting(self.draws.choice(fresh)).join(_RIVAL_SECONDS)

        some = self.draws.sample(self.census.remaining, min(3, len(self.census.remaining)))
        self._change_sources(some)
        return self._overtake("/fused_manifest.parquet", meanwhile)

    def _ids_in_unmerged_shards(self) -> set[str]:
        store, layout = self.census.store, self.census.layout
        ids: set[str] = set()
        for strategy in worker.STRATEGIES:
            base = layout.fused_manifest(strategy)
            seen = ManifestFooter.of(store.get(base), base).shards if store.exists(base) else None
            for info in store.list(layout.shards_prefix(strategy)):
                if info.key not in (seen or ()):
                    shard = FusedShard.from_npz(store.get(info.key), info.key)
                    ids.update(shard.video_ids.tolist())
        return ids

    def _overtake(self, trap: str, meanwhile: Callable[[], None]) -> str:
        """Hold the next writes of such keys, put workers to sleep, let something happen, go on."""
        weather = self.weather
        weather.until, weather.caught, weather.trap = 0.0, 0, trap
        weather.release.clear()
        end = time.monotonic() + _TRAPPED_SECONDS
        while not weather.caught and time.monotonic() < end:
            time.sleep(0.01)
        slept: list[ForkServerProcess] = []
        if weather.caught:
            time.sleep(0.05)  # what its sender does beside it comes to the trap, too
        weather.trap = ""
        if weather.caught:
            slept = [p for p in self.running.values() if p.exitcode is None and p.pid is not None]
            for process in slept:
                os.kill(process.pid or 0, signal.SIGSTOP)
            meanwhile()
        weather.release.set()
        for process in slept:
            self.asleep.pop(process, None)
            os.kill(process.pid or 0, signal.SIGCONT)
        return f"{weather.caught} writes of {trap} held, {len(slept)} workers overtaken"

    def _change_sources(self, some: Sequence[str]) -> None:
        for video_id in some:
            self.census.change_source(video_id, tell=False)
        self.census.write_tables()

    def _wake(self, now: float) -> None:
        for process, until in list(self.asleep.items()):
            if until <= now:
                del self.asleep[process]
                if process.exitcode is None and process.pid is not None:
                    os.kill(process.pid, signal.SIGCONT)

    def _storm(self) -> str:
        self.weather.share = self.draws.choice([0.02, 0.05, 0.1, 0.3, 0.8])
        seconds = self.draws.uniform(0.5, 3.0)
        kinds = self.draws.sample(_FAST, self.draws.randint(1, len(_FAST)))
        if self.draws.random() < 0.2:  # each takes a whole timeout
            kinds = [self.draws.choice(ENDLESS)]
            self.weather.share = min(self.weather.share, 0.2)
        self.weather.faults = tuple(kinds)
        self.weather.until = time.monotonic() + seconds
        named = ", ".join(kind.name.lower() for kind in kinds[:3])
        return f"{self.weather.share:.0%} of requests for {seconds:.1f} s: {named}"

    def _outage(self) -> str:
        seconds = self.draws.uniform(0.2, 1.5)
        self.proxy.dead = True
        time.sleep(seconds)
        self.proxy.dead = False
        return f"S3 hangs up on everybody for {seconds:.1f} s"

    def _restart_database(self) -> str:
        self.database.restart()
        return "immediately"

    def _add(self) -> str:
        number = self.draws.randint(1, 6)
        self.census.add(number)
        return f"{number} clips"

    def _change_source(self) -> str:
        return self._to_one(self.census.change_source)

    def _capture_again(self) -> str:
        return self._to_one(self.census.capture_again)

    def _words_arrive(self) -> str:
        return self._to_one(self.census.words_arrive)

    def _to_one(self, change: Callable[[str], None]) -> str:
        video_id = self.draws.choice(self.census.remaining)
        change(video_id)
        return video_id

    def _forget(self) -> str:
        known = self.census.remaining
        again = self.draws.random() < 0.3 and sorted(self.census.removing)
        video_id = self.draws.choice(again or known)
        self._begin_forgetting(video_id)
        return f"{video_id}{' --raw' if self.census.removing[video_id] else ''}"

    def _begin_forgetting(self, video_id: str) -> ForkServerProcess:
        raw = self.census.removing.setdefault(video_id, self.draws.random() < 0.5)
        self.commands.append(self._begin(worker.forget, self.place, video_id, raw))
        return self.commands[-1]

    def _gc(self) -> str:
        """Workers stand back until it begins: it would refuse to begin beside them."""
        # Above what a run takes, as the documentation asks for.
        seconds = 10 * self.place.ttl_seconds
        (self.place.folder / "lull").touch()
        self._lull_until = time.monotonic() + _LULL_SECONDS
        is_alone = self.draws.random() < 0.7
        self.commands.append(self._begin(worker.gc, self.place, seconds, is_alone))
        return f"of what is {seconds:g} s old"

    def _duel(self) -> str:
        date, seed = self.draws.choice(self.census.dates), self.draws.getrandbits(32)
        for number in range(2):
            self.commands.append(self._begin(worker.duel, self.place, seed + number, date))
        return f"two runs of {date}"
