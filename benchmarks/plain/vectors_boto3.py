"""Vectors to and from S3 the plain way: an object a vector, one after another."""

import io
from collections.abc import Iterable
from typing import Any

import boto3
import numpy as np


def client(url: str) -> Any:
    """A client for the server at `url`, which checks no keys."""
    keys = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", **keys)


def put_vectors(s3: Any, bucket: str, keys: Iterable[str], vectors: np.ndarray) -> None:
    for key, vector in zip(keys, vectors, strict=True):
        buffer = io.BytesIO()
        np.save(buffer, vector)
        s3.put_object(Bucket=bucket, Key=key, Body=buffer.getvalue())


def get_vectors(s3: Any, bucket: str, keys: Iterable[str]) -> np.ndarray:
    found = []
    for key in keys:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        found.append(np.load(io.BytesIO(body)))
    return np.stack(found)
