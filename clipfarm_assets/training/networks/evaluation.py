"""What a network gives for rows, whatever rows come with them."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipfarm_assets.training.networks.batches import Inputs, non_finite

BLOCK_ROWS: Final = 256


def evaluate(
    network: nn.Module,
    inputs: Inputs,
    call: Callable[..., Any] | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Tensor:
    """What `network` gives for N rows, on the CPU, without dropout.

    Rows go through in blocks of exactly `block_rows`, the last one padded with zeros: a matrix
    product's kernel, and with it the last bit of its result, depends on the number of rows. So a
    row's result does not depend on the rows that come with it.

    Args:
        network: Put into eval mode for the time.
        inputs: N rows each.
        call: One of the network's methods in place of its forward.
        block_rows: Rows of a block: a network of large inputs takes fewer at a time.

    Returns:
        ``(N, ...)``.
    """
    device = _device_of(network)
    was_training = network.training
    network.eval()
    forward = network if call is None else call
    count = len(next(iter(inputs.values())))
    outputs = []
    try:
        with torch.inference_mode():
            for start in range(0, max(count, 1), block_rows):
                block = {
                    key: _padded(value[start : start + block_rows], block_rows).to(device)
                    for key, value in inputs.items()
                }
                outputs.append(forward(**block).cpu())
    finally:
        network.train(was_training)
    return torch.cat(outputs)[:count]


def predict(network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
    """`evaluate` of a regression network, as float64 ``(N,)``.

    Raises:
        ValueError: A prediction is not finite.
    """
    values: NDArray[np.float64] = evaluate(network, inputs).double().numpy()
    lost = int((~np.isfinite(values)).sum())
    if lost:
        msg = (
            f"{lost} of {len(values)} predictions are not finite: the vectors or metadata of those "
            f"rows are not{non_finite(inputs)}; expected finite numbers"
        )
        raise ValueError(msg)
    return values


def as_tensor(array: NDArray[Any]) -> Tensor:
    """`array` as a tensor; memory is shared unless the array is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _padded(rows: Tensor, block_rows: int) -> Tensor:
    missing = block_rows - len(rows)
    if not missing:
        return rows
    return torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
