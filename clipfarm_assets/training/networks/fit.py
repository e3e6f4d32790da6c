"""The one loop that fits every network, and the one way of evaluating them."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from clipfarm_assets.training.config import FitConfig
from clipfarm_assets.training.networks.batches import (
    Batches,
    InMemory,
    Inputs,
    StreamedBatches,
    non_finite,
)
from clipfarm_assets.training.networks.checkpoint import (
    BadCheckpoint,
    Checkpoint,
    StoredCheckpoint,
    pack,
    resume,
)
from clipfarm_assets.training.networks.evaluation import (
    BLOCK_ROWS,
    as_tensor,
    evaluate,
    predict,
)
from clipfarm_assets.training.networks.fit_state import FitState, network_identity
from clipfarm_assets.training.networks.objectives import (
    CLASS_SCORES,
    REGRESSION,
    Objective,
    balanced_class_weights,
    binary_cross_entropy,
    cross_entropy,
)
from clipfarm_assets.training.networks.parameter_groups import ParameterGroup, adamw
from clipfarm_assets.training.networks.progress import Progress, Say
from clipfarm_assets.training.networks.reproducible import Stream, generator, reproducible
from clipfarm_assets.training.networks.watch import Watch

__all__ = [
    "BLOCK_ROWS",
    "CLASS_SCORES",
    "REGRESSION",
    "BadCheckpoint",
    "Batches",
    "Checkpoint",
    "Curve",
    "Diverged",
    "InMemory",
    "Inputs",
    "Objective",
    "ParameterGroup",
    "Say",
    "StoredCheckpoint",
    "StreamedBatches",
    "Watch",
    "as_tensor",
    "balanced_class_weights",
    "binary_cross_entropy",
    "choose_device",
    "clip_together",
    "cross_entropy",
    "evaluate",
    "fit",
    "fit_batches",
    "predict",
]


Clip = Callable[[Any, float], object]
"""``(network, clip_norm)``: scales gradients down, between backward pass and step."""


def clip_together(network: nn.Module, clip_norm: float) -> None:
    """Scale the gradient of all parameters down to `clip_norm` where it is longer."""
    nn.utils.clip_grad_norm_(network.parameters(), clip_norm)


class Diverged(ArithmeticError):  # noqa: N818 - says what happened
    """Loss or score is no longer finite."""


class _NotFiniteError(ArithmeticError):
    """A loss or score is not finite; the text names inputs that are not, if any."""


@dataclass(frozen=True)
class Curve:
    """A fit, epoch by epoch.

    Attributes:
        train_loss: Mean loss of the epoch's rows, each under the weights and dropout of its step.
        val_score: Score of the validation rows after the epoch.
        score_name: What `val_score` is, e.g. ``val_rmse``.
        best_epoch: Index of the epoch whose weights the network has now.
        stopped_early: Whether patience ended it before the last epoch.
        other_scores: The objective's other scores after the epoch, by name.
        watched: What a `Watch` said of the epoch, by name.
        resumed_after: How many epochs a checkpoint brought along. This and the next tell of the
            run, not of the result: curves that differ in them alone are equal.
        discarded: How many checkpoints were of no use, and discarded.
    """

    train_loss: tuple[float, ...]
    val_score: tuple[float, ...]
    score_name: str
    best_epoch: int
    stopped_early: bool
    other_scores: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    watched: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    resumed_after: int = field(default=0, compare=False)
    discarded: int = field(default=0, compare=False)

    def to_fields(self) -> dict[str, Any]:
        """As a JSON object, the scores under their names; None where one is not finite."""
        others = {
            name: [value if math.isfinite(value) else None for value in values]
            for name, values in self.other_scores.items()
        }
        return {
            "train_loss": list(self.train_loss),
            self.score_name: list(self.val_score),
            **others,
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
    """`fit_batches` of rows in memory.

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
    if max_epochs is not None:
        config = config.model_copy(update={"max_epochs": max_epochs})
    return fit_batches(
        network,
        InMemory(inputs, target, config.batch_size),
        InMemory(val_inputs, val_target, BLOCK_ROWS, shuffle=False, part="val"),
        config,
        seed,
        say=say,
        name=name,
        objective=objective,
    )


def fit_batches(
    network: nn.Module,
    train: Batches,
    val: Batches,
    config: FitConfig,
    seed: int,
    *,
    say: Say,
    name: str,
    objective: Objective = REGRESSION,
    groups: Sequence[ParameterGroup] = (),
    checkpoint: Checkpoint | None = None,
    clip_norm: float | None = None,
    clip: Clip = clip_together,
    restart_foreign: bool = False,
    watch: Watch | None = None,
) -> Curve:
    """Fit `network` in place with AdamW, and leave it on the CPU in eval mode at its best epoch.

    The last batch may be smaller and counts as it is. The global state of torch (random numbers,
    determinism) is the same before and after. On the CPU, one build and one number of threads, the
    same arguments give the same bits, also where the fit was killed and goes on from its
    checkpoint.

    Only frozen parameters are left out of a checkpoint and of what is kept of the best epoch. Of
    the validation rows, outputs and targets are held all at once, inputs a batch at a time.

    Args:
        network: Called as ``network(**inputs)``; initialise it under `reproducible`.
        train: In an order of its own each epoch. Its batch size counts, not the config's.
        val: In the same order each epoch, in blocks of its batch size (see `evaluate`).
        config: Optimiser, epochs, patience, device.
        seed: Decides order and dropout.
        say: Gets a line of progress every few seconds, and one at the end.
        name: What is fitted, as the lines say it.
        objective: Loss and scores.
        groups: Parts of the network with rates of their own.
        checkpoint: Where the state is saved after every epoch and looked for at the start. It is
            left there: clear it once what came of the fit is stored.
        clip_norm: Longest gradient; longer ones are scaled down to it. None leaves all as they are.
        clip: How, e.g. each modality on its own (`fusion.learned.gradients.clip_by_modality`); a
            function of a module, by whose name checkpoints are told apart.
        restart_foreign: Discard a checkpoint that is damaged or of another fit; it is counted in
            the curve and said.
        watch: Looks on; what it says is kept in the curve.

    Raises:
        ValueError: A part has no rows, a group or `clip_norm` makes no sense.
        StreamChanged: A stream had another number of rows than it was said to have.
        BadCheckpoint: The checkpoint is damaged or of another fit.
        Diverged: The loss or the score became infinite or NaN. The checkpoint is cleared: to go on
            from it would end the same way.
    """
    for part, batches in (("train", train), ("val", val)):
        if batches.rows < 1:
            msg = f"the {part} part has no rows: expected at least one"
            raise ValueError(msg)
    if clip_norm is not None and not 0 < clip_norm < math.inf:
        msg = f"clip_norm must be finite and above 0, or None for no clipping, not {clip_norm}"
        raise ValueError(msg)
    device = choose_device(config.device)
    last = config.max_epochs
    clipped = None if clip_norm is None else partial(clip, network, clip_norm)
    with ExitStack() as stack:
        stack.enter_context(reproducible(seed, Stream.DROPOUT, device))
        network.to(device)
        if watch is not None:
            stack.enter_context(watch)
        optimizer, names = adamw(network, config, groups)
        order = generator(seed, Stream.SHUFFLE)
        state = FitState(network, optimizer, names, order, device)
        belongs_to: dict[str, Any] = {}
        discarded = 0
        if checkpoint is not None:
            belongs_to = {
                "config": config.model_dump(mode="json"),
                "seed": seed,
                "objective": objective.identity,
                "groups": [group.to_fields() for group in groups],
                "clip": clip_norm and [f"{clip.__module__}.{clip.__qualname__}", clip_norm],
                "network": network_identity(network),
                "data": {"train": train.identity(), "val": val.identity()},
                "device": device.type,
                "torch": torch.__version__,
            }
            if watch is not None:
                belongs_to["watch"] = list(watch.names)
            found, discarded = resume(
                checkpoint,
                belongs_to,
                restart_foreign=restart_foreign,
                say=lambda line: say(f"{name}: {line}"),
            )
            if found is not None:
                state.restore(found)
                say(f"{name}: goes on from a checkpoint after epoch {state.epochs}/{last}")
        resumed_after = state.epochs
        progress = Progress(say, name, train.rows, resumed_after, last)
        try:
            while not state.ended(last, config.patience):
                state.train_loss.append(_epoch(state, train, objective, clipped, progress))
                if watch is not None:
                    state.keep_watched(watch.epoch())
                _validate(state, val, objective, seed)
                state.keep_if_best()
                if checkpoint is not None:
                    checkpoint.save(pack(belongs_to, state.tensors()))
                reached = f"loss {state.train_loss[-1]:.4f}, {_scores(objective, state, -1)}"
                progress.after(state.epochs - 1, reached)
        except _NotFiniteError as error:
            if checkpoint is not None:
                checkpoint.clear()
            raise _diverged(name, state.epochs + 1, config, str(error)) from None
        state.load_best()
        network.to("cpu").eval()
    best = f"best {_scores(objective, state, state.best_epoch)} in epoch {state.best_epoch + 1}"
    progress.end(state.epochs, best)
    return Curve(
        train_loss=tuple(state.train_loss),
        val_score=tuple(state.val_score),
        score_name=objective.score_name,
        best_epoch=state.best_epoch,
        stopped_early=state.epochs < last,
        other_scores={key: tuple(state.other_scores[key]) for key in objective.other_scores},
        watched={key: tuple(state.watched[key]) for key in (watch.names if watch else ())},
        resumed_after=resumed_after,
        discarded=discarded,
    )


def _epoch(
    state: FitState,
    train: Batches,
    objective: Objective,
    clip: Callable[[], object] | None,
    progress: Progress,
) -> float:
    """One pass over the rows; the mean of their losses."""
    network, device = state.network, state.device
    network.train()
    total = torch.zeros((), dtype=torch.float64, device=device)
    rows = 0
    for inputs, target in train.epoch(state.order):
        state.optimizer.zero_grad(set_to_none=True)
        batch = {key: value.to(device) for key, value in inputs.items()}
        loss = objective.loss(network(**batch), target.to(device))
        if not bool(loss.isfinite()):
            raise _NotFiniteError(non_finite({**inputs, "target": target}))
        loss.backward()
        if clip is not None:
            clip()
        state.optimizer.step()
        total += loss.detach().double() * len(target)
        rows += len(target)
        progress.within(state.epochs, rows, total)
    mean: float = (total / rows).item()
    return mean


def _validate(state: FitState, val: Batches, objective: Objective, seed: int) -> None:
    """Score the validation rows."""
    outputs: list[Tensor] = []
    targets: list[Tensor] = []
    named = ""
    for inputs, target in val.epoch(generator(seed, Stream.SHUFFLE)):
        outputs.append(_wide(evaluate(state.network, inputs, block_rows=val.batch_size)))
        targets.append(_wide(target.cpu()))
        if outputs[-1].is_floating_point() and not bool(outputs[-1].isfinite().all()):
            named = named or non_finite({**inputs, "target": target})
    output, expected = torch.cat(outputs), torch.cat(targets)
    score = objective.score(output, expected).item()
    if not math.isfinite(score):
        raise _NotFiniteError(named)
    state.val_score.append(score)
    for name, other in objective.other_scores.items():
        state.other_scores.setdefault(name, []).append(other(output, expected).item())


def _scores(objective: Objective, state: FitState, epoch: int) -> str:
    """All scores after an epoch, as lines say them."""
    scores = {objective.score_name: state.val_score, **state.other_scores}
    return ", ".join(f"{name} {values[epoch]:.4f}" for name, values in scores.items())


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


def _wide(values: Tensor) -> Tensor:
    return values.double() if values.is_floating_point() else values


def _diverged(name: str, epoch: int, config: FitConfig, named: str) -> Diverged:
    return Diverged(
        f"{name} diverged in epoch {epoch}: expected a finite loss, found none; lower the learning "
        f"rate (now {config.learning_rate:g}){named}"
    )
