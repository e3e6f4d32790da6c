"""All that a fit carries from one epoch to the next, as plain tensors and back."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from clipfarm_assets.training.networks.batches import tensors_hash

_NETWORK: Final = "network/"
_BEST: Final = "best/"
_OPTIMIZER: Final = "optimizer/"
_OTHER_SCORES: Final = "curve/other_scores/"
_WATCHED: Final = "curve/watched/"
_BEST_EPOCH: Final = "curve/best_epoch"
_TRAIN_LOSS: Final = "curve/train_loss"
_VAL_SCORE: Final = "curve/val_score"
_ORDER: Final = "random/order"
_CPU: Final = "random/cpu"
_CUDA: Final = "random/cuda"


@dataclass(eq=False)
class FitState:
    """A fit after some epochs, none at first.

    Attributes:
        network: On `device`.
        optimizer: Of its parameters.
        names: Of those parameters, in the optimizer's order.
        order: Decides the order of the epochs to come.
        device: Whose random numbers dropout takes.
        train_loss: Of each epoch.
        val_score: Of each epoch; lower is better.
        other_scores: Of each epoch, by name.
        watched: What was seen of each epoch's training steps, by name.
        best_epoch: Index of the first epoch with the lowest score.
        best: What learns of the network, as it was then.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    names: list[str]
    order: torch.Generator
    device: torch.device
    train_loss: list[float] = field(default_factory=list)
    val_score: list[float] = field(default_factory=list)
    other_scores: dict[str, list[float]] = field(default_factory=dict)
    watched: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many are done."""
        return len(self.val_score)

    def keep_watched(self, numbers: Mapping[str, float]) -> None:
        """Keep what was seen of the epoch in progress."""
        for name, number in numbers.items():
            self.watched.setdefault(name, []).append(number)

    def ended(self, last: int, patience: int) -> bool:
        """Whether `last` epochs are done, or none of the last `patience` ones was the best."""
        return self.epochs >= last or self.epochs - 1 - self.best_epoch >= patience

    def keep_if_best(self) -> None:
        """Keep the weights if the epoch just done is the best so far."""
        if self.epochs == 1 or self.val_score[-1] < self.val_score[self.best_epoch]:
            self.best_epoch = self.epochs - 1
            self.best = {key: value.clone() for key, value in learning(self.network).items()}

    def load_best(self) -> None:
        """Put the best epoch's weights into the network."""
        self.network.load_state_dict({**self.network.state_dict(), **self.best})

    def tensors(self) -> dict[str, Tensor]:
        """All of it; views, so use them before the next step."""
        weights = learning(self.network)
        found = {f"{_NETWORK}{key}": value for key, value in weights.items()}
        if self.best_epoch != self.epochs - 1:  # otherwise the weights are the best ones
            found |= {f"{_BEST}{key}": value for key, value in self.best.items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            for kind, value in values.items():
                found[f"{_OPTIMIZER}{kind}/{self.names[index]}"] = value
        found[_BEST_EPOCH] = torch.tensor(self.best_epoch)
        found[_TRAIN_LOSS] = torch.tensor(self.train_loss, dtype=torch.float64)
        found[_VAL_SCORE] = torch.tensor(self.val_score, dtype=torch.float64)
        for name, scores in self.other_scores.items():
            found[f"{_OTHER_SCORES}{name}"] = torch.tensor(scores, dtype=torch.float64)
        for name, numbers in self.watched.items():
            found[f"{_WATCHED}{name}"] = torch.tensor(numbers, dtype=torch.float64)
        found[_ORDER] = self.order.get_state()
        found[_CPU] = torch.default_generator.get_state()
        if self.device.type == "cuda":
            found[_CUDA] = torch.cuda.get_rng_state(self.device)
        return found

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Become the state that `tensors` were taken of."""
        weights = _below(_NETWORK, tensors)
        self.network.load_state_dict({**self.network.state_dict(), **weights})
        self.best = {
            key: value.clone().to(self.device)
            for key, value in (_below(_BEST, tensors) or weights).items()
        }
        self.best_epoch = int(tensors[_BEST_EPOCH])
        self._restore_optimizer(_below(_OPTIMIZER, tensors))
        self.train_loss = tensors[_TRAIN_LOSS].tolist()
        self.val_score = tensors[_VAL_SCORE].tolist()
        self.other_scores = {
            name: scores.tolist() for name, scores in _below(_OTHER_SCORES, tensors).items()
        }
        self.watched = {
            name: numbers.tolist() for name, numbers in _below(_WATCHED, tensors).items()
        }
        self.order.set_state(tensors[_ORDER])
        torch.default_generator.set_state(tensors[_CPU])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[_CUDA], self.device)

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        state: dict[int, dict[str, Any]] = {}
        index = {name: place for place, name in enumerate(self.names)}
        for key, value in tensors.items():
            kind, name = key.split("/", 1)
            # A copy: the optimizer writes into it.
            state.setdefault(index[name], {})[kind] = value.clone()
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})


def learning(network: nn.Module) -> dict[str, Tensor]:
    """What a fit may change of a network's state: all but frozen parameters."""
    frozen = {
        key
        for key, value in network.named_parameters(remove_duplicate=False)
        if not value.requires_grad
    }
    return {key: value for key, value in network.state_dict().items() if key not in frozen}


def network_identity(network: nn.Module) -> dict[str, str]:
    """What a checkpoint knows a network by, before its first step.

    ``form`` hashes names, types, shapes and what is frozen; ``start`` the weights too.
    """
    state = network.state_dict()
    moving = learning(network)
    form = "\n".join(
        f"{key} {value.dtype} {tuple(value.shape)} {'learns' if key in moving else 'frozen'}"
        for key, value in sorted(state.items())
    )
    return {
        "form": hashlib.sha256(form.encode()).hexdigest(),
        "start": tensors_hash(state),
    }


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
    }
