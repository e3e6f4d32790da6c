"""How strongly each modality is trained: gradient norms, imbalance, clipping each on its own."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

import torch
from torch import Tensor, nn

from clipfarm_assets.fusion.learned.network import FusionNetwork

SHARED: Final = "shared"
"""Parameters of no single modality: strategy, head, and what encoders have in common."""

IMBALANCED: Final = 10.0
"""From this ratio of two modalities' gradient norms on, advice is given."""


def trained_parameters(network: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters that get gradients, by modality and `SHARED`, each in one group.

    To a modality belong its encoder, projection, missing token and own head.

    Args:
        network: A `FusionNetwork`, or a module around one, such as `AllLogits`.

    Raises:
        ValueError: There is none in it, or more than one.
    """
    fusion = _fusion_of(network)
    owned: dict[str, list[nn.Parameter]] = {}
    for name in fusion.modalities:
        parts = (
            child[name]
            for child in (fusion.encoders, fusion.projections, fusion.unimodal)
            if name in child
        )
        own = {parameter for part in parts for parameter in part.parameters()}
        owned[name] = [*own, fusion.missing[name]]
    owners = Counter(parameter for own in owned.values() for parameter in own)
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in (*owned, SHARED)}
    group_of = {p: name for name, own in owned.items() for p in own if owners[p] == 1}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups[group_of.get(parameter, SHARED)].append(parameter)
    return groups


def gradient_norms(network: nn.Module) -> dict[str, float]:
    """Euclidean norm of each group's gradients as they are now; 0 where there are none."""
    groups = trained_parameters(network)
    return {name: _norm(own).item() for name, own in groups.items()}


def clip_by_modality(network: nn.Module, max_norm: float) -> dict[str, float]:
    """Scale the gradients of each group that is longer than `max_norm` down to it.

    Call it between ``backward`` and the optimiser's ``step``. One modality's large gradients leave
    the others' as they are, as clipping all at once would not.

    Returns:
        The norms before.
    """
    return {
        name: float(nn.utils.clip_grad_norm_(own, max_norm))
        for name, own in trained_parameters(network).items()
        if own
    }


def imbalance(
    norms: Mapping[str, float], ratio: float = IMBALANCED, *, clipped: bool = False
) -> str | None:
    """Advice where the strongest modality's gradients are `ratio` times the weakest's, or more.

    Args:
        norms: By modality; `SHARED`, and those of 0, which are frozen or absent, don't count.
        ratio: Above 1.
        clipped: Whether each modality is clipped on its own already, so that this is no advice.
    """
    trained = {name: norm for name, norm in norms.items() if name != SHARED and norm > 0}
    if len(trained) < 2:
        return None
    strong, weak = max(trained, key=trained.__getitem__), min(trained, key=trained.__getitem__)
    times = trained[strong] / trained[weak]
    if times < ratio:
        return None
    clip = "" if clipped else ", or clip each modality on its own"
    return (
        f"gradients of {strong} are {times:.0f} times those of {weak} (norms "
        f"{trained[strong]:.3g} and {trained[weak]:.3g}): lower the learning rate of {strong} or "
        f"raise that of {weak}{clip}"
    )


@dataclass(frozen=True, slots=True)
class GradientReport:
    """What a `GradientMonitor` saw.

    Attributes:
        norms: Root mean square, over the steps that had any, of each group's gradient norm.
        steps: How many these were.
        advice: Of `imbalance`, if any.
    """

    norms: Mapping[str, float]
    steps: Mapping[str, int]
    advice: str | None


class GradientMonitor:
    """Watches a network's gradients while something else fits it.

    ``with GradientMonitor(network) as monitor: fit(...)``, then `report`. It hangs on the
    parameters, so any loop will do that goes forward and backward once a step and begins each with
    gradients of None. They are read as they arrive, before any clipping.
    """

    def __init__(
        self, network: nn.Module, ratio: float = IMBALANCED, *, clipped: bool = False
    ) -> None:
        """For `network`, as in `trained_parameters`; the others as in `imbalance`."""
        self._network = network
        self._ratio, self._clipped = ratio, clipped
        self._handles: list[torch.utils.hooks.RemovableHandle] = []
        self._step = 0
        self._last_step: dict[str, int] = {}
        self._steps: Counter[str] = Counter()
        self._squares: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        """Begin to watch."""
        head = _fusion_of(self._network).head
        self._handles.append(head.register_forward_pre_hook(self._count_step))
        for name, own in trained_parameters(self._network).items():
            for parameter in own:
                hook = partial(self._add, name)
                self._handles.append(parameter.register_post_accumulate_grad_hook(hook))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the parameters as they were."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def report(self) -> GradientReport:
        """Of all steps since the start, or since `clear`."""
        norms = {
            name: (square / self._steps[name]).sqrt().item()
            for name, square in self._squares.items()
        }
        advice = imbalance(norms, self._ratio, clipped=self._clipped)
        return GradientReport(norms, dict(self._steps), advice)

    def clear(self) -> None:
        """Forget the steps up to now, e.g. at the end of an epoch."""
        self._steps.clear()
        self._squares.clear()

    def _count_step(self, _head: nn.Module, _inputs: tuple[Tensor, ...]) -> None:
        self._step += 1  # of which only those count that gradients come back from

    def _add(self, name: str, parameter: nn.Parameter) -> None:
        if self._last_step.get(name) != self._step:
            self._last_step[name] = self._step
            self._steps[name] += 1
        square = _norm([parameter]).square()
        # Summed where the gradient is: to fetch each number would wait for the device.
        self._squares[name] = self._squares[name] + square if name in self._squares else square


def _fusion_of(network: nn.Module) -> FusionNetwork:
    found = [module for module in network.modules() if isinstance(module, FusionNetwork)]
    if len(found) != 1:
        msg = f"expected one FusionNetwork in the {type(network).__name__}: found {len(found)}"
        raise ValueError(msg)
    return found[0]


def _norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The norm of all gradients as one vector, float64; of none, 0."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    if not norms:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(torch.stack(norms).double())
