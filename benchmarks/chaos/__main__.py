"""Workers embed, fuse and publish while an adversary disturbs them; then the outcome is proved.

    python -m benchmarks.chaos --minutes 5 --seed 7

The seed fixes which disturbances come, in which order; when each of them hits, the machine decides.
The exit status is 1 if anything is lost, dangling, wrong, left over or done twice.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
import uuid
from collections import Counter
from pathlib import Path

from benchmarks import latency_s3
from benchmarks.chaos import commits
from benchmarks.chaos.adversary import FORK, Adversary
from benchmarks.chaos.census import Census
from benchmarks.chaos.proof import Proof, prove
from benchmarks.chaos.worker import Place
from benchmarks.common import machine
from clipfarm_assets.storage.layout import Layout
from clipfarm_assets.storage.objects import ObjectStore, S3Settings
from clipfarm_assets_tests.faulty_proxy import faulty_proxy
from clipfarm_assets_tests.servers import PostgresServer, postgres_server

_REQUEST_SECONDS = 1.0
_CALM_SECONDS = 3.0
_SHOWN = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to disturb")
    parser.add_argument("--actions", type=int, help="so many disturbances, however long they take")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clips", type=int, default=40, help="at the beginning")
    parser.add_argument("--dates", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between disturbances")
    parser.add_argument(
        "--requests", type=int, default=40, help="to S3 between them: so that work is done at all"
    )
    parser.add_argument("--ttl", type=float, default=2.0, help="seconds that a lease holds")
    asked = parser.parse_args()
    print(machine(), flush=True)
    FORK.set_forkserver_preload(["benchmarks.chaos.worker"])
    with tempfile.TemporaryDirectory(prefix="clipfarm-chaos-") as folder:
        return _chaos(asked, Path(folder), postgres_server())


def _chaos(asked: argparse.Namespace, folder: Path, database: PostgresServer) -> int:
    commits.watch(database.url)
    with latency_s3.serving(1.0) as url:
        direct = S3Settings(url, "us-east-1", "chaos", "chaos-secret")
        with faulty_proxy(direct) as proxy:
            patience = {"retries": 4, "retry_seconds": 6.0, "timeout_seconds": _REQUEST_SECONDS}
            s3 = S3Settings(
                proxy.settings.endpoint_url, "us-east-1", "chaos", "chaos-secret", **patience
            )
            store_url = f"s3://{latency_s3.BUCKET}/{uuid.uuid4().hex}"
            (folder / "processes").mkdir()
            place = Place(store_url, s3, database.url, folder / "processes", asked.ttl)
            draws = random.Random(asked.seed)
            store = ObjectStore.open(store_url, direct)
            census = Census(store, Layout(), asked.dates, random.Random(draws.random()))
            census.add(asked.clips)
            adversary = Adversary(place, census, proxy, database, draws, asked.workers)
            begun = time.monotonic()
            adversary.start()
            _disturb(adversary, asked)
            hung = adversary.stop()
            seconds = time.monotonic() - begun
            proof = prove(place, census, folder / "plain")
            proof.findings += [f"hung: {told}" for told in hung]
            runs, unexpected = _runs(place)
            proof.findings += unexpected
            return _tell(asked, adversary, proof, runs, seconds, len(proxy.calls))


def _disturb(adversary: Adversary, asked: argparse.Namespace) -> None:
    """Act as long, or as often, as was asked for."""
    until = time.monotonic() + asked.minutes * 60
    pauses = random.Random(asked.seed)
    done = 0
    while done < asked.actions if asked.actions is not None else time.monotonic() < until:
        adversary.act()
        done += 1
        time.sleep(pauses.uniform(0, 2 * asked.pause))
        calls = adversary.proxy.calls
        wanted = len(calls) + pauses.randint(0, 2 * asked.requests)
        patience = time.monotonic() + _CALM_SECONDS
        while len(calls) < wanted and time.monotonic() < patience:
            time.sleep(0.02)


def _runs(place: Place) -> tuple[Counter[str], list[str]]:
    """How runs ended, and those that ended by no sentence that the documentation knows."""
    ends: Counter[str] = Counter()
    unexpected = []
    log = place.folder / "runs.jsonl"
    for line in log.read_text().splitlines() if log.exists() else ():
        told = json.loads(line)
        if "removed" in told:
            ends["gc: objects removed"] += len(told["removed"])
        if "ended" not in told:
            continue
        what = told["what"].partition(" ")[0]
        ends[f"{what}: {told['ended']}"] += 1
        if told["ended"] == "unexpected":
            unexpected.append(f"unexpected: {told['what']}: {told['kind']}: {told['told']}")
    return ends, unexpected


def _tell(
    asked: argparse.Namespace,
    adversary: Adversary,
    proof: Proof,
    runs: Counter[str],
    seconds: float,
    requests: int,
) -> int:
    print(f"\nseed {asked.seed}, {seconds:.0f} s, {asked.workers} workers, {requests} requests\n")
    written = commits.committed(adversary.place.ledger_url)
    for title, counts in (
        ("disturbances", adversary.actions),
        ("faults of S3", adversary.weather.counts),
        ("runs and commands", runs),
        ("rows written", written),
        ("looked at", proof.looked_at),
    ):
        print(f"| {title} | {sum(counts.values())} |\n|---|---:|")
        for name, number in sorted(counts.items()):
            print(f"| {name} | {number} |")
        print()
    print(f"findings: {len(proof.findings)}")
    for finding in proof.findings[:_SHOWN]:
        print(f"  {finding}")
    if proof.findings:
        print(f"\nthe last disturbances of seed {asked.seed}:")
        for line in adversary.last:
            print(f"  {line}")
    sys.stdout.flush()
    return bool(proof.findings)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
