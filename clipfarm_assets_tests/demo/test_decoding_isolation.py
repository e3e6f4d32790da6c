"""Decoding in processes gives what decoding in the run's own threads gives, of all hard cases."""

from contextlib import closing

import numpy as np
import pytest

from clipfarm_assets.demo.edge_cases import EDGE_CASES
from clipfarm_assets.encoders.base import Deadline, MediaError
from clipfarm_assets.encoders.decoding import InThread
from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers

CASES = {case.video_id for case in EDGE_CASES}


@pytest.fixture(scope="module")
def ways():
    with closing(DecodeWorkers(2**30)) as workers:
        yield InThread(), workers


def raws(sample, modality):
    """The raw objects of the hard cases, and of a few ordinary clips."""
    files = sorted((sample.folder / f"clipfarm/raw/{modality}").iterdir())
    ordinary = [file for file in files if file.stem not in CASES][:3]
    return {f.name: f.read_bytes() for f in files if f.stem in CASES or f in ordinary}


def frames(way, raw):
    try:
        picked = way.pick_frames(raw, 16, 16, np.copy, Deadline.after(60), "upright")
    except MediaError as error:
        return str(error)
    told = (
        picked.decoded_frames,
        picked.decode_errors,
        picked.listed,
        picked.packets_decoded,
        picked.from_start_because,
    )
    return [(frame.shape, frame.tobytes()) for frame in picked.frames], told


def samples(way, raw):
    try:
        found, seconds = way.load_audio(raw, 16_000, 90.0, Deadline.after(60))
    except MediaError as error:
        return str(error)
    return found.dtype, found.tobytes(), seconds


@pytest.mark.parametrize(("modality", "decode"), [("video", frames), ("audio", samples)])
def test_the_same_bytes_counts_and_sentences(sample, ways, modality, decode):
    in_thread, in_process = ways
    found = raws(sample, modality)
    expected = {name: decode(in_thread, raw) for name, raw in found.items()}
    assert {name: decode(in_process, raw) for name, raw in found.items()} == expected
    refused = sum(isinstance(told, str) for told in expected.values())
    assert 1 <= refused <= len(expected) - 10
