"""The engine of one machine: threads with bounded queues between them, in order throughout."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.pipelines.deployment import Deployment
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.embed_steps import Clip, Embedded, Model, Ready, Steps
from clipfarm_assets.pipelines.encoder_on_demand import EncoderOnDemand
from clipfarm_assets.pipelines.flow import grouped, ordered_map
from clipfarm_assets.pipelines.meters import Meters
from clipfarm_assets.pipelines.workers import CPU, Machine, WorkPlan, plan_work


@dataclass(frozen=True)
class Work:
    """What an engine is to do, and with what.

    Attributes:
        deployment: Where raw objects are read.
        modality: What is embedded.
        encoder: Of this process; opened when its version, or itself, is needed.
        options: How to work.
        machine: What this process may use.
        device: The kind of device the model runs on; asked when there is a model.
        expected: Clips to come: few are not left to one encode worker.
        meters: What is told of each step.
    """

    deployment: Deployment
    modality: Modality
    encoder: EncoderOnDemand
    options: EmbedOptions
    machine: Machine
    device: Callable[[], str]
    expected: int
    meters: Meters

    def plan_for(self, device: str) -> WorkPlan:
        """Workers and depths of this machine."""
        return plan_work(self.options.worker_options, self.modality, self.machine, device)

    def steps(self) -> Steps:
        """The steps, by this machine's meters."""
        return Steps(
            self.deployment.store,
            self.deployment.layout,
            self.modality,
            self.options.item_deadline_seconds,
            self.meters,
        )


class Engine(Protocol):
    """Takes clips through fetch, decode and encode, wherever that is done."""

    @property
    def plan(self) -> WorkPlan:
        """The workers that it has; may change while it works."""

    @property
    def note(self) -> str:
        """What people should know of where it worked; empty for this machine's own threads."""

    def embedded(self, clips: Iterable[Clip]) -> Generator[Embedded, None, None]:
        """What the model made of the clips, in their order; nothing is stored.

        To be closed. What is not an item's fault is raised in the item's place, and ends it.
        """


class LocalEngine:
    """Threads of this process, and the processes in which they have media decoded.

    Memory is bounded by the plan's depths and, where items are large, by bytes. If it ends before
    the clips do, what decodes for the encoder is closed, so that nobody waits for a medium that
    hangs.
    """

    note = ""

    def __init__(self, work: Work) -> None:
        """Plan it; nothing starts before `embedded` is consumed."""
        self._work, self._steps = work, work.steps()
        self.plan = work.plan_for(CPU)

    def embedded(self, clips: Iterable[Clip]) -> Generator[Embedded, None, None]:
        """See `Engine`."""
        encoder = self._work.encoder
        prefetch_bytes = self._work.options.prefetch_mib * 2**20
        ready = self._steps.ready(
            clips, encoder, self.plan, prefetch_bytes, give_up=encoder.decoding.close
        )
        with closing(ready), closing(self._encoded(ready)) as encoded:
            yield from encoded

    def _encoded(self, decoded: Iterator[Ready]) -> Generator[Embedded, None, None]:
        """Group and encode. How, is known when the first prepared item is: then there is a model.

        Groups are full, or all there is: the last one, and what comes before an error.
        """
        for first in decoded:
            if first.is_prepared:
                break
            yield Embedded(first.clip, first.error, first.waits)
        else:
            return
        model = Model(self._work.encoder(), self._work.meters)
        self.plan = self._work.plan_for(self._work.device())
        share = -(-self._work.expected // self.plan.encode_workers)
        groups = ordered_map(
            model.encode,
            grouped(chain(iter([first]), decoded), max(1, min(model.encoder.group_size, share))),
            workers=self.plan.encode_workers,
            ahead=self.plan.encode_ahead,
        )
        del first
        with closing(groups):
            for group in groups:
                yield from group
