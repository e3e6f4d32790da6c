"""How a cluster's processors are shared between decoding and encoding. Pure; needs no Ray."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from clipfarm_assets.contracts.statuses import Modality
from clipfarm_assets.pipelines.embed_options import EmbedOptions
from clipfarm_assets.pipelines.workers import IO_WORKERS, WorkPlan

_DECODE_CPUS: Final = 4.0
"""Cores of one decoding process: as many items at a time share its copy of the model's files."""
_ENCODE_SHARE: Final = 2 / 3
"""Of the cores, what encoders may take where there is no accelerator: they cost about twice what
decoding does."""
_ROUNDING: Final = 1e-9
PUT_WORKERS: Final = 32
"""A cluster makes vectors faster than four threads store them at 20 ms each."""
_BLOCK_CLIPS: Final[dict[Modality, int]] = {"video": 16, "audio": 16, "text": 256}
"""Clips a task: some seconds of work, and tens of megabytes of prepared input at most."""


class ClusterTooSmall(RuntimeError):  # noqa: N818 - a state of the deployment
    """No node has what one worker was told to take."""


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """What a user may set of a cluster; None leaves it to `share_out`.

    Attributes:
        address: ``auto`` or ``host:port``: a cluster that this machine is a node of; empty: this
            machine alone, as a cluster of its own.
        decode_cpus: Cores of one process that fetches and decodes.
        encode_cpus: Cores of one encoder.
        encode_gpus: Accelerators of one encoder.
        encoders: Encoders at most; fewer where decoding would be left without a core.
        block_clips: Clips that are handed out together.
        stalled_seconds: So long without any task done, and what is left is started anew.
    """

    address: str = ""
    decode_cpus: float | None = None
    encode_cpus: float | None = None
    encode_gpus: float = 0.0
    encoders: int | None = None
    block_clips: int | None = None
    stalled_seconds: float = 900.0


@dataclass(frozen=True, slots=True)
class Node:
    """A machine of the cluster, as far as Ray may use it: cores and accelerators."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True, slots=True)
class Shares:
    """Who gets what of a cluster.

    Attributes:
        decode_cpus: Cores of one decoding process.
        encode_cpus: Cores of one encoder.
        encode_gpus: Accelerators of one encoder.
        encoders: Encoders at most.
        block_clips: Clips that are handed out together.
        nodes: Machines.
        cpus: Their cores.
        gpus: Their accelerators.
    """

    decode_cpus: float
    encode_cpus: float
    encode_gpus: float
    encoders: int
    block_clips: int
    nodes: int
    cpus: float
    gpus: float

    @property
    def decode_threads(self) -> int:
        """Items that one decoding process works on at a time."""
        return max(1, int(self.decode_cpus))

    def sentence(self) -> str:
        """The cluster in words."""
        return (
            f"{self.nodes} nodes, {self.cpus:g} cores, {self.gpus:g} accelerators; "
            f"up to {self.encoders} encoders of {self.encode_cpus:g} cores and "
            f"{self.encode_gpus:g} accelerators, decoding by {self.decode_cpus:g} cores a process"
        )


def share_out(options: ClusterOptions, modality: Modality, nodes: Sequence[Node]) -> Shares:
    """Cores and accelerators for decoding and encoding.

    One encoder and one decoding process must fit side by side: encoders keep what they have, so
    that decoding would wait for ever otherwise.

    Args:
        options: What the user set; it is taken as it is.
        modality: What is embedded.
        nodes: The cluster as it is now.

    Raises:
        ClusterTooSmall: A worker of the size asked for fits nowhere.
    """
    cpus, gpus = sum(node.cpus for node in nodes), sum(node.gpus for node in nodes)
    if cpus <= 0:
        msg = f"expected a node with cores, found {_told(nodes)}: add one, or wait for it"
        raise ClusterTooSmall(msg)
    if options.encode_gpus > 1 and options.encode_gpus % 1:
        msg = (
            "expected a share of one accelerator or whole ones for an encoder, as Ray hands them "
            f"out, found {options.encode_gpus:g}: set ray_encode_gpus to one of these"
        )
        raise ClusterTooSmall(msg)
    largest = max((node.cpus for node in nodes), default=0.0)
    encode = options.encode_cpus
    if encode is None:
        encode = 1.0 if cpus >= 2 else 0.5 * cpus
    decode = options.decode_cpus
    if decode is None:
        decode = min(_DECODE_CPUS, max(0.5 * largest, 1.0 if cpus >= 2 else 0.0))
    fit = _fitting(nodes, encode, options.encode_gpus)
    if not fit:
        msg = (
            f"expected a node with {encode:g} cores and {options.encode_gpus:g} accelerators for "
            f"an encoder, found {_told(nodes)}: set ray_encode_cpus and ray_encode_gpus to what "
            "the nodes have, or add one"
        )
        raise ClusterTooSmall(msg)
    if not _side_by_side(nodes, encode, options.encode_gpus, decode):
        msg = (
            f"expected room for an encoder of {encode:g} cores beside a decoding process of "
            f"{decode:g}, found {_told(nodes)}: lower ray_encode_cpus or ray_decode_cpus"
        )
        raise ClusterTooSmall(msg)
    # Encoders lie wherever Ray puts them. If what they leave is more than each node could have
    # left in crumbs too small for decoding, then some node has room for it.
    crumbs = sum(min(node.cpus, decode) for node in nodes)
    most = min(fit, max(1, int(round((cpus - crumbs) / encode, 6))) if encode else fit)
    encoders = options.encoders
    if encoders is None:
        encoders = (
            most
            if options.encode_gpus
            else max(1, int((cpus - decode) * _ENCODE_SHARE / (encode or 1)))
        )
    encoders = min(encoders, most)
    return Shares(
        decode,
        encode,
        options.encode_gpus,
        encoders,
        options.block_clips or _BLOCK_CLIPS[modality],
        len(nodes),
        cpus,
        gpus,
    )


def work_plan(shares: Shares, options: EmbedOptions) -> WorkPlan:
    """The cluster's workers all together, for the roofline; depths are those of one process."""
    left = shares.cpus if shares.encode_gpus else shares.cpus - shares.encoders * shares.encode_cpus
    processes = max(1, int(left / shares.decode_cpus))
    fetch = options.fetch_workers or IO_WORKERS
    return WorkPlan(
        fetch_workers=processes * fetch,
        decode_workers=processes * shares.decode_threads,
        encode_workers=shares.encoders,
        put_workers=options.put_workers or PUT_WORKERS,
        fetch_ahead=2 * fetch,
        decode_ahead=4 * shares.decode_threads,
        encode_ahead=1,
        cores=max(1, int(shares.cpus)),
        on_accelerator=shares.encode_gpus > 0,
        threads=options.threads,
    )


def process_plan(shares: Shares, options: EmbedOptions) -> WorkPlan:
    """The threads of one decoding process."""
    fetch, decode = options.fetch_workers or IO_WORKERS, options.workers or shares.decode_threads
    depth = options.queue_depth
    return WorkPlan(
        fetch_workers=fetch,
        decode_workers=decode,
        encode_workers=1,
        put_workers=1,
        fetch_ahead=(depth or 2) * fetch,
        decode_ahead=(depth or 4) * decode,
        encode_ahead=1,
        cores=shares.decode_threads,
        on_accelerator=False,
    )


def _fitting(nodes: Sequence[Node], cpus: float, gpus: float) -> int:
    """How many workers of that size the nodes hold together."""
    return sum(_times(node, cpus, gpus) for node in nodes)


def _times(node: Node, cpus: float, gpus: float) -> int:
    room = [int(node.cpus / cpus)] if cpus else []
    if 0 < gpus < 1:  # a worker lies on one accelerator
        room.append(int(node.gpus) * int(1 / gpus + _ROUNDING))
    elif gpus:
        room.append(int(node.gpus / gpus))
    return min(room, default=1)


def _side_by_side(nodes: Sequence[Node], encode: float, gpus: float, decode: float) -> bool:
    """Whether a decoding process fits when one encoder is at the place that leaves most room."""
    for number, node in enumerate(nodes):
        if _times(node, encode, gpus):
            left = [n.cpus - (encode if i == number else 0) for i, n in enumerate(nodes)]
            if max(left) >= decode:
                return True
    return False


def _told(nodes: Sequence[Node]) -> str:
    kinds = sorted({(node.cpus, node.gpus) for node in nodes}, reverse=True)
    told = ", ".join(f"{cpus:g} cores and {gpus:g} accelerators" for cpus, gpus in kinds)
    return f"nodes of {told}" if told else "no node"
