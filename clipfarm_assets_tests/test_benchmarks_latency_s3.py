"""The benchmarks' S3 server tells the truth: as the clients see it, and when it drops answers."""

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import boto3
import botocore.exceptions
import pytest

from clipfarm_assets.storage.objects import (
    ObjectExists,
    ObjectInfo,
    ObjectStore,
    S3Settings,
    StoreUnavailable,
)

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def serving(*options: object) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.latency_s3", "--attached", *map(str, options)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as server:
        yield server.stdout.readline().strip()
        server.stdin.close()  # as when the benchmark that it is attached to ends
        assert server.wait(30) == 0


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(serving(*options))


def opened(url: str, retries: int = 5) -> ObjectStore:
    return ObjectStore.open(
        "s3://benchmark/p", S3Settings(url, "us-east-1", "a", "b", retries=retries)
    )


def counts(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/-/counts", timeout=30) as answer:
        return json.load(answer)


def test_it_is_a_store_to_obstore_and_boto3(start):
    url = start("--latency-ms", 0)
    store = opened(url)
    store.check_conditional_writes("probe")
    store.put_if_absent("a/é+ %.npy", b"0123456789")
    with pytest.raises(ObjectExists):
        store.put_if_absent("a/é+ %.npy", b"other")
    assert store.get_tail("a/é+ %.npy", 3) == b"789"
    large = os.urandom(11 << 20)
    store.put("large", large)
    assert store.get("large") == large
    numbered = [f"n/{n:04}" for n in range(1005)]
    assert list(store.put_many((key, b"x") for key in numbered)) == numbered
    assert [info.key for info in store.list("n")] == numbered
    assert store.list("a").__next__() == ObjectInfo("a/é+ %.npy", 10)
    with pytest.raises(FileNotFoundError):
        store.get("none")
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )
    body = client.get_object(Bucket="benchmark", Key="p/a/é+ %.npy", Range="bytes=2-4")["Body"]
    assert body.read() == b"234"
    client.put_object(Bucket="benchmark", Key="p/ours", Body=b"of boto3")
    assert store.get("ours") == b"of boto3"
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="benchmark", Prefix="p/n/")
    assert [info["Key"] for page in pages for info in page["Contents"]] == [
        f"p/{key}" for key in numbered
    ]
    client.delete_object(Bucket="benchmark", Key="p/ours")
    assert not store.exists("ours")
    with pytest.raises(botocore.exceptions.ClientError, match="NoSuchKey"):
        client.get_object(Bucket="benchmark", Key="p/ours")
    with pytest.raises(botocore.exceptions.ClientError, match="NotImplemented"):
        client.list_objects_v2(Bucket="benchmark", Delimiter="/")
    client.close()
    assert counts(url)["put"] >= 1006


def test_requests_wait_side_by_side_each_for_the_latency(start):
    url = start("--latency-ms", 100)
    store = opened(url)
    begun = time.perf_counter()
    store.put("k", b"x")
    assert time.perf_counter() - begun >= 0.1
    assert counts(url)["most at once"] == 1
    assert list(store.put_many(((f"k{n}", b"x") for n in range(40)), workers=8))[-1] == "k39"
    assert 1 < counts(url)["most at once"] <= 8


def test_bulk_transfers_outlive_lost_connections(start):
    """Every fifth answer is lost with its connection, after the request took effect."""
    url = start("--latency-ms", 0, "--drop-every", 5)
    objects = {f"k/{n}": os.urandom(n) for n in range(40)}
    assert list(opened(url).put_many(objects.items(), workers=8)) == list(objects)
    assert dict(opened(url).get_many(objects, workers=8)) == objects
    seen = counts(url)
    assert seen["put"] > 40
    assert seen["get"] > 40


def test_a_connection_lost_for_good_is_an_error_in_its_place(start):
    store = opened(start("--latency-ms", 0, "--drop-every", 4), retries=0)
    found = store.put_many(((f"k/{n}", b"x") for n in range(12)), workers=1)
    assert [next(found) for _ in range(3)] == ["k/0", "k/1", "k/2"]
    with pytest.raises(StoreUnavailable, match="PUT of k/3 failed once"):
        next(found)
