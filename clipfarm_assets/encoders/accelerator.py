"""Batches for an accelerator: as many clips as its memory allows, always in the same shape.

A matrix product of another shape may sum in another order. So every batch has the one size that
was chosen when the model was loaded, and a short one is filled by repeating its last clip; the
surplus results are dropped. The size follows from the device's total memory, not from what happens
to be free, so that it is the same in every run on one machine.

Not run on a GPU so far: what touches ``torch.cuda`` here (`batch_size`, pinned memory). The
batching itself runs on CPU as well, with any size, and is tested there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MEMORY_SHARE: Final = 0.5
"""Of the device's memory, what a batch's own tensors may take; the rest is weights and others."""
MAX_BATCH: Final = 64
"""A base model fills a large accelerator with fewer clips; more only wait longer."""


def fixed_batches(items: Sequence[NDArray[Any]], size: int) -> Iterator[tuple[NDArray[Any], int]]:
    """Batches of exactly `size` items, each with how many of them are real.

    Yields:
        An array of shape (size, *item shape), and a count of 1 to `size`; beyond it the last item
        is repeated.
    """
    for start in range(0, len(items), size):
        batch = list(items[start : start + size])
        real = len(batch)
        batch += [batch[-1]] * (size - real)
        yield np.stack(batch), real


def run_batches(
    items: Sequence[NDArray[Any]],
    forward: Callable[[Any], Any],
    *,
    device: Any,
    size: int,
) -> list[NDArray[np.float32]]:
    """Run `forward` over `items` in batches of one shape; results in order.

    On an accelerator the copies are asynchronous: while it computes one batch, the host stacks and
    pins the next. Only the end waits for the results.

    Args:
        items: Arrays of one shape and type.
        forward: A tensor (size, *item shape) on `device` to one of shape (size, dim).
        device: Torch device.
        size: Items a batch.
    """
    import torch

    pin = device.type == "cuda"
    outputs = []
    for batch, real in fixed_batches(items, size):
        host = torch.from_numpy(batch)
        values = (host.pin_memory() if pin else host).to(device, non_blocking=pin)
        outputs.append(forward(values)[:real])
    return [vector for output in outputs for vector in output.cpu().numpy()]


def batch_size(forward: Callable[[Any], Any], item: NDArray[Any], device: Any) -> int:
    """How many items a batch on `device` should have; 1 on anything but CUDA.

    Args:
        forward: As for `run_batches`.
        item: An item of the shape that is to be batched.
        device: Torch device.
    """
    if device.type != "cuda":
        return 1
    import torch

    def peak(count: int) -> int:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = int(torch.cuda.memory_allocated(device))
        run_batches([item] * count, forward, device=device, size=count)
        return int(torch.cuda.max_memory_allocated(device)) - before

    peak(1)  # the first forward also allocates what libraries keep
    one, two = peak(1), peak(2)
    total = int(torch.cuda.get_device_properties(device).total_memory)
    return stable_size(forward, item, device, largest_size(one, two, total))


def largest_size(peak_of_one: int, peak_of_two: int, total: int) -> int:
    """The largest power of two whose peak stays below the share of `total`, at most `MAX_BATCH`.

    Args:
        peak_of_one: Bytes that a batch of one needs at its peak.
        peak_of_two: The same of two; the difference is what a further item costs.
        total: Bytes of the device.
    """
    each = max(peak_of_two - peak_of_one, 1)
    size = 1
    while 2 * size <= MAX_BATCH and peak_of_one + (2 * size - 1) * each <= MEMORY_SHARE * total:
        size *= 2
    return size


def stable_size(forward: Callable[[Any], Any], item: NDArray[Any], device: Any, size: int) -> int:
    """`size`, if an item's result has the same bytes in every place of a batch of it; else 1.

    Where the place in a batch changed last bits, so would the neighbours before it.
    """
    found = run_batches([item] * size, forward, device=device, size=size)
    return size if len({vector.tobytes() for vector in found}) == 1 else 1
