"""Looking on while a network is fitted: numbers of every epoch that decide nothing."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, Self

from clipfarm_assets.fusion.learned.gradients import IMBALANCED, GradientMonitor, trained_parameters
from clipfarm_assets.fusion.learned.network import FusionNetwork
from clipfarm_assets.training.networks.progress import Say


class Watch(AbstractContextManager[Any], Protocol):
    """Sees the training steps of a fit, and says something of them after each epoch.

    What it says is kept with the fit's state, so that a fit that goes on from a checkpoint has it
    of the epochs before, too. It must change nothing.
    """

    @property
    def names(self) -> Sequence[str]:
        """What it gives a number of."""

    def epoch(self) -> Mapping[str, float]:
        """The numbers, one a name, of the training steps since it was last asked."""


class GradientWatch:
    """The gradient norm of each modality, epoch by epoch; imbalances are said as they are seen.

    See `GradientMonitor`: an epoch's norm is the root mean square over its steps, before clipping.
    """

    def __init__(
        self,
        network: FusionNetwork,
        ratio: float = IMBALANCED,
        *,
        clipped: bool = False,
        name: str,
        warn: Say,
    ) -> None:
        """For a network that is about to be fitted, itself or wrapped by another module.

        Args:
            network: Whose modalities are told apart.
            ratio: From which on an imbalance is said, see `imbalance`.
            clipped: See there.
            name: What is fitted, as the warnings say it.
            warn: Gets them.
        """
        self.names = tuple(trained_parameters(network))
        self._monitor = GradientMonitor(network, ratio, clipped=clipped)
        self._name, self._warn = name, warn

    def __enter__(self) -> Self:
        """Begin to watch."""
        self._monitor.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        """Leave the network as it was."""
        self._monitor.__exit__(None, None, None)

    def epoch(self) -> dict[str, float]:
        """The norms of the epoch just done; 0 of what got no gradient."""
        report = self._monitor.report()
        self._monitor.clear()
        if report.advice:
            self._warn(f"{self._name}: {report.advice}")
        return {name: report.norms.get(name, 0.0) for name in self.names}
