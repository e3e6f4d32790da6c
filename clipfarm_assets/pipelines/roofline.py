"""How near a run came to what its machine could do, and what held it back.

After the roofline model (Williams, Waterman and Patterson, 2009): each step has a ceiling that
follows from what one item costs and how many workers there are; the lowest ceiling is the limit
of the whole. Everything is a function of what the flow measured of itself, see `meters`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from clipfarm_assets.pipelines.meters import STEPS, Step, StepUse
from clipfarm_assets.pipelines.workers import WorkPlan

Bound = Literal["decode", "compute", "requests", "bytes"]

LARGE_OBJECT: Final = 2**20
"""Mean bytes an object from which its transfer takes longer than the request itself."""

_IN_WORDS: Final[Mapping[Bound, str]] = {
    "decode": "decoding on the CPU",
    "compute": "the model's computation",
    "requests": "the store's latency",
    "bytes": "moving bytes to or from the store",
}


@dataclass(frozen=True, slots=True)
class Ceiling:
    """One line of the table.

    Attributes:
        stage: A step's name, or ``whole``.
        items: Items it was done for.
        achieved: Items a second.
        limit: Items a second that it could have done alone; None if it cost nothing measurable.
        bound_by: What sets the limit.
    """

    stage: str
    items: int
    achieved: float
    limit: float | None
    bound_by: Bound

    @property
    def ratio(self) -> float | None:
        """Achieved over limit."""
        return None if self.limit is None else self.achieved / self.limit


@dataclass(frozen=True, slots=True)
class Roofline:
    """A run of a stage against its limits.

    Attributes:
        steps: Of each step that did anything, in order.
        whole: All of it; its limit is the lowest of those that hold.
        seconds: Wall time of the run, without opening the encoder.
        cores: CPUs that decoding and, without an accelerator, encoding share.
        on_accelerator: Whether the model has a processor of its own.
    """

    steps: tuple[Ceiling, ...]
    whole: Ceiling
    seconds: float
    cores: int
    on_accelerator: bool

    def sentence(self) -> str:
        """Which step limits, in words."""
        whole = self.whole
        if whole.limit is None or whole.ratio is None:
            return f"{whole.items} items in {self.seconds:.1f} s; no step cost anything measurable"
        return (
            f"{whole.achieved:.3g} items/s of at most {whole.limit:.3g} ({whole.ratio:.0%}), "
            f"limited by {_IN_WORDS[whole.bound_by]}"
        )

    def records(self) -> list[dict[str, str | int | float]]:
        """The table's lines as plain records, numbers to three digits."""
        return [
            {
                "stage": line.stage,
                "items": line.items,
                "achieved_per_s": _digits(line.achieved),
                "limit_per_s": _digits(line.limit),
                "ratio": _digits(line.ratio),
                "bound_by": line.bound_by,
            }
            for line in (*self.steps, self.whole)
        ]


def roofline(
    uses: Mapping[Step, StepUse], plan: WorkPlan, items: int, seconds: float
) -> Roofline | None:
    """The table of a run; None if there was none to speak of.

    Limits, in items a second:

    - fetch, put: workers over the mean seconds an item; bound by requests, or by bytes where a
      mean object is larger than `LARGE_OBJECT`.
    - decode: cores over CPU seconds an item.
    - encode: on a CPU likewise; on an accelerator encode workers over busy seconds an item.
    - whole: the lowest of these, and on a CPU, where decoding and encoding share the cores, cores
      over the CPU seconds of both an item; bound by the larger of the two.

    Args:
        uses: What each step used.
        plan: Its workers.
        items: Items the run finished, of any outcome.
        seconds: Its wall time, opening the encoder left out.
    """
    if not items or seconds <= 0:
        return None
    found = {step: uses[step] for step in STEPS if step in uses and uses[step].items}
    steps = tuple(
        Ceiling(step, use.items, use.items / seconds, *_limit(step, use, plan, use.items))
        for step, use in found.items()
    )
    # Of the whole's items some never reach a later step: costs are spread over all of them.
    ceilings = [_limit(step, use, plan, items) for step, use in found.items()]
    ceilings += _shared_cores(found, plan, items)
    known = [(limit, bound) for limit, bound in ceilings if limit is not None]
    lowest: tuple[float | None, Bound] = min(known) if known else (None, "compute")
    whole = Ceiling("whole", items, items / seconds, *lowest)
    return Roofline(steps, whole, seconds, plan.cores, plan.on_accelerator)


def _limit(step: Step, use: StepUse, plan: WorkPlan, items: int) -> tuple[float | None, Bound]:
    if step in {"fetch", "put"}:
        workers = plan.fetch_workers if step == "fetch" else plan.put_workers
        large = use.bytes > LARGE_OBJECT * use.items
        return _rate(workers * items, use.busy_seconds), "bytes" if large else "requests"
    if step == "encode" and plan.on_accelerator:
        return _rate(plan.encode_workers * items, use.busy_seconds), "compute"
    if step == "decode":
        return _rate(plan.cores * items, use.cpu_seconds), "decode"
    return _rate(plan.cores * items, _encode_cpu(use, plan)), "compute"


def _shared_cores(
    uses: Mapping[Step, StepUse], plan: WorkPlan, items: int
) -> Iterator[tuple[float | None, Bound]]:
    """The limit of decoding and encoding on the same cores."""
    if plan.on_accelerator:
        return
    decode = uses.get("decode", StepUse()).cpu_seconds
    encode = _encode_cpu(uses.get("encode", StepUse()), plan)
    yield _rate(plan.cores * items, decode + encode), "decode" if decode > encode else "compute"


def _encode_cpu(use: StepUse, plan: WorkPlan) -> float:
    """Processor seconds of encoding.

    Torch's further threads are not the worker's own to measure: of several, all are taken to have
    worked as long as it did.
    """
    return use.cpu_seconds if plan.threads == 1 else plan.threads * use.busy_seconds


def _rate(items: float, seconds: float) -> float | None:
    return items / seconds if seconds > 0 else None


def _digits(value: float | None) -> float | str:
    return "n/a" if value is None else float(f"{value:.3g}")
