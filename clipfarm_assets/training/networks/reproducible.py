"""Random numbers and kernels that repeat, without touching the process's global state."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Final

import numpy as np
import torch

_CUBLAS_VARIABLE: Final = "CUBLAS_WORKSPACE_CONFIG"
_CUBLAS_DETERMINISTIC: Final = ":4096:8"
_CPU: Final = torch.device("cpu")


class Stream(IntEnum):
    """What random numbers are drawn for; each has a stream of its own."""

    INITIALISATION = 0
    DROPOUT = 1
    SHUFFLE = 2


def stream_seed(seed: int, stream: Stream) -> int:
    """The seed of one of the independent streams of `seed`, a non-negative integer."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)[0] >> 1)


def generator(seed: int, stream: Stream) -> torch.Generator:
    """A generator on the CPU for one stream."""
    return torch.Generator().manual_seed(stream_seed(seed, stream))


@contextmanager
def reproducible(
    seed: int, stream: Stream = Stream.INITIALISATION, device: torch.device = _CPU
) -> Iterator[None]:
    """Seed torch's global generators and allow deterministic kernels only, for the time.

    Random state, determinism and cuDNN settings are as before afterwards. Not for two threads at
    once: these are settings of the process.
    """
    flags = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    deterministic, benchmark = cudnn.deterministic, cudnn.benchmark
    cublas = os.environ.get(_CUBLAS_VARIABLE)
    on_cuda = device.type == "cuda"
    try:
        if on_cuda and cublas is None:  # without it torch refuses cuBLAS as nondeterministic
            os.environ[_CUBLAS_VARIABLE] = _CUBLAS_DETERMINISTIC
        torch.use_deterministic_algorithms(True)
        cudnn.deterministic, cudnn.benchmark = True, False
        with torch.random.fork_rng(devices=[device] if on_cuda else []):
            # Not torch.manual_seed: it reseeds every accelerator, forked or not.
            torch.default_generator.manual_seed(stream_seed(seed, stream))
            if on_cuda:
                with torch.cuda.device(device):
                    torch.cuda.manual_seed(stream_seed(seed, stream))
            yield
    finally:
        torch.use_deterministic_algorithms(flags, warn_only=warn_only)
        cudnn.deterministic, cudnn.benchmark = deterministic, benchmark
        if on_cuda and cublas is None:
            os.environ.pop(_CUBLAS_VARIABLE, None)
