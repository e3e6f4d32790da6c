"""The one loop that fits every network, and the one way of evaluating them."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.reproducible import Stream, generator, reproducible

Inputs = Mapping[str, Tensor]
"""What a network is called with, ``network(**inputs)``: tensors of N rows each, by argument."""

Say = Callable[[str], None]

BLOCK_ROWS: Final = 256
_SAY_EVERY_SECONDS: Final = 5.0


class Diverged(ArithmeticError):  # noqa: N818 - says what happened
    """Loss or score is no longer finite."""


@dataclass(frozen=True)
class Objective:
    """What a fit minimises, and what decides when it stops.

    Attributes:
        loss: ``(output [b, ...], target [b, ...]) -> mean over the rows``, a scalar.
        score: The same of all validation rows in float64; lower is better.
        score_name: How curves and progress name it.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    score: Callable[[Tensor, Tensor], Tensor]
    score_name: str


def _rmse(output: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(output, target).sqrt()


REGRESSION: Final = Objective(nn.functional.mse_loss, _rmse, "val_rmse")
"""Mean squared error, stopped on the validation RMSE: the training contract, section 7."""


@dataclass(frozen=True)
class Curve:
    """A fit, epoch by epoch.

    Attributes:
        train_loss: Mean loss of the epoch's rows, each under the weights and dropout of its step.
        val_score: Score of the validation rows after the epoch.
        score_name: What `val_score` is, e.g. ``val_rmse``.
        best_epoch: Index of the epoch whose weights the network has now.
        stopped_early: Whether patience ended it before the last epoch.
    """

    train_loss: tuple[float, ...]
    val_score: tuple[float, ...]
    score_name: str
    best_epoch: int
    stopped_early: bool

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object, the scores under their name."""
        return {
            "train_loss": list(self.train_loss),
            self.score_name: list(self.val_score),
            "best_epoch": self.best_epoch,
            "stopped_early": self.stopped_early,
        }


def fit(
    network: nn.Module,
    inputs: Inputs,
    target: Tensor,
    val_inputs: Inputs,
    val_target: Tensor,
    config: FitConfig,
    seed: int,
    *,
    say: Say,
    name: str,
    max_epochs: int | None = None,
    objective: Objective = REGRESSION,
) -> Curve:
    """Fit `network` in place with AdamW, and leave it on the CPU in eval mode at its best epoch.

    Rows are shuffled anew each epoch; the last batch may be smaller and counts as it is. The
    global state of torch (random numbers, determinism) is the same before and after. On the CPU,
    one build and one number of threads, the same arguments give the same bits.

    Args:
        network: Called as ``network(**inputs)``; initialise it under `reproducible`.
        inputs: N >= 1 train rows.
        target: ``(N, ...)``, finite.
        val_inputs: At least one row.
        val_target: Finite.
        config: Optimiser, batches, epochs, patience, device.
        seed: Decides order and dropout.
        say: Gets a line of progress every few seconds, and one at the end.
        name: What is fitted, as the lines say it.
        max_epochs: In place of the config's.
        objective: Loss and score.

    Raises:
        ValueError: A part has no rows, or inputs and target differ in their number.
        Diverged: The loss or the score became infinite or NaN.
    """
    _check_rows("train", inputs, target)
    _check_rows("val", val_inputs, val_target)
    device = choose_device(config.device)
    last = config.max_epochs if max_epochs is None else max_epochs
    order = generator(seed, Stream.SHUFFLE)
    losses: list[float] = []
    scores: list[float] = []
    best: dict[str, Tensor] = {}
    best_epoch = 0
    started = said = time.monotonic()
    with reproducible(seed, Stream.DROPOUT, device):
        network.to(device)
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        for epoch in range(last):
            permutation = torch.randperm(len(target), generator=order)
            batches = permutation.split(config.batch_size)
            losses.append(_epoch(network, optimizer, inputs, target, batches, objective))
            if math.isfinite(losses[-1]):
                output = evaluate(network, val_inputs)
                score = objective.score(_wide(output), _wide(val_target)).item()
                scores.append(score)
            if not (math.isfinite(losses[-1]) and math.isfinite(scores[-1])):
                raise _diverged(name, epoch + 1, config, {**inputs, "target": target})
            if epoch == 0 or scores[-1] < scores[best_epoch]:
                best_epoch = epoch
                best = {key: value.clone() for key, value in network.state_dict().items()}
            if epoch - best_epoch >= config.patience:
                break
            now = time.monotonic()
            if now - said >= _SAY_EVERY_SECONDS:
                said = now
                seconds = (now - started) / (epoch + 1)
                say(
                    f"{name}: epoch {epoch + 1}/{last}, loss {losses[-1]:.4f}, "
                    f"{objective.score_name} {scores[-1]:.4f}, "
                    f"{len(target) / seconds:.0f} rows/s, at most "
                    f"{seconds * (last - epoch - 1):.0f} s left"
                )
        network.load_state_dict(best)
        network.to("cpu").eval()
    say(
        f"{name}: {len(scores)} of {last} epochs in {time.monotonic() - started:.1f} s, best "
        f"{objective.score_name} {scores[best_epoch]:.4f} in epoch {best_epoch + 1}"
    )
    return Curve(
        train_loss=tuple(losses),
        val_score=tuple(scores),
        score_name=objective.score_name,
        best_epoch=best_epoch,
        stopped_early=len(scores) < last,
    )


def _epoch(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    inputs: Inputs,
    target: Tensor,
    batches: tuple[Tensor, ...],
    objective: Objective,
) -> float:
    """One pass over the rows; the mean of their losses."""
    network.train()
    device = _device_of(network)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for rows in batches:
        optimizer.zero_grad(set_to_none=True)
        batch = {key: value[rows].to(device) for key, value in inputs.items()}
        loss = objective.loss(network(**batch), target[rows].to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach().double() * len(rows)
    mean: float = (total / len(target)).item()
    return mean


def evaluate(
    network: nn.Module,
    inputs: Inputs,
    call: Callable[..., Any] | None = None,
) -> Tensor:
    """What `network` gives for N rows, on the CPU, without dropout.

    Rows go through in blocks of exactly `BLOCK_ROWS`, the last one padded with zeros: a matrix
    product's kernel, and with it the last bit of its result, depends on the number of rows. So a
    row's result does not depend on the rows that come with it.

    Args:
        network: Put into eval mode for the time.
        inputs: N rows each.
        call: One of the network's methods in place of its forward.

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
            for start in range(0, max(count, 1), BLOCK_ROWS):
                block = {
                    key: _padded(value[start : start + BLOCK_ROWS]).to(device)
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
            f"rows are not{_non_finite(inputs)}; expected finite numbers"
        )
        raise ValueError(msg)
    return values


def as_tensor(array: NDArray[Any]) -> Tensor:
    """`array` as a tensor; memory is shared unless the array is read-only."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def choose_device(wanted: str) -> torch.device:
    """The torch device for `FitConfig.device`.

    Raises:
        ValueError: ``cuda`` is wanted and there is none.
    """
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        msg = "device is 'cuda', and torch finds no CUDA device here: use 'cpu' or 'auto'"
        raise ValueError(msg)
    use_cuda = wanted == "cuda" or (wanted == "auto" and there)
    return torch.device("cuda", torch.cuda.current_device()) if use_cuda else torch.device("cpu")


def _padded(rows: Tensor) -> Tensor:
    missing = BLOCK_ROWS - len(rows)
    if not missing:
        return rows
    return torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))])


def _wide(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


def _check_rows(part: str, inputs: Inputs, target: Tensor) -> None:
    counts = {key: len(value) for key, value in inputs.items()}
    if len(target) == 0:
        msg = f"the {part} part has no rows: expected at least one"
        raise ValueError(msg)
    if set(counts.values()) != {len(target)}:
        msg = f"the {part} part has {len(target)} targets and inputs of other lengths: {counts}"
        raise ValueError(msg)


def _diverged(name: str, epoch: int, config: FitConfig, inputs: Inputs) -> Diverged:
    return Diverged(
        f"{name} diverged in epoch {epoch}: expected a finite loss, found none; lower the learning "
        f"rate (now {config.learning_rate:g}){_non_finite(inputs)}"
    )


def _non_finite(inputs: Inputs) -> str:
    """Names the inputs that are not finite, as the end of a sentence."""
    names = [
        key
        for key, value in inputs.items()
        if value.is_floating_point() and not bool(value.isfinite().all())
    ]
    return f" (values that are not finite: {', '.join(names)})" if names else ""
