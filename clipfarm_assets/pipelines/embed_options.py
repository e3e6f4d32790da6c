"""How an embedding run works."""

from dataclasses import dataclass

from clipfarm_assets.contracts import statuses
from clipfarm_assets.encoders.decoding import DecodeIsolation, InThread, MediaDecoding
from clipfarm_assets.pipelines.workers import WorkerOptions


@dataclass(frozen=True)
class EmbedOptions:
    """How a run works; none of these changes a vector.

    Attributes:
        batch_size: Items committed together; and vectors at most that are being stored, or stored
            and not committed yet: what a run that is killed makes the next one repeat.
        workers: Threads that decode; None follows from the machine, as for the next ones.
        fetch_workers: Threads that read raw objects.
        encode_workers: Threads that run the model.
        put_workers: Threads that store vectors.
        threads: Torch's threads for one item, as the encoder has them: so many cores an encode
            worker takes.
        queue_depth: Items a worker of each queue; None follows from the step.
        audio_seconds: The longest sound, as the encoder takes it: memory follows from it.
        prefetch_mib: Bound of raw objects in memory, in MiB, see `flow.ByteBudget`.
        item_deadline_seconds: Time after which one item's decoding is given up.
        decode_isolation: Where media are decoded: each worker in a ``process`` of its own, which
            may hang, crash or be killed, or in its ``thread``, which may not.
        decode_memory_mib: What a process that decodes may take, in MiB.
        max_fail_retries: Failures of one source kept as `fail`; the next one is `fail_terminal`.
        retry_terminal: Try items again that ended as `fail_terminal`.
        verify_objects: Read every stored vector of the dates, and make those again that are gone
            or are not the bytes that were recorded.
    """

    batch_size: int = 8
    workers: int | None = None
    fetch_workers: int | None = None
    encode_workers: int | None = None
    put_workers: int | None = None
    threads: int = 1
    queue_depth: int | None = None
    audio_seconds: float = 90.0
    prefetch_mib: int = 256
    item_deadline_seconds: float = 120.0
    decode_isolation: DecodeIsolation = "process"
    decode_memory_mib: int = 4096
    max_fail_retries: int = statuses.DEFAULT_MAX_FAIL_RETRIES
    retry_terminal: bool = False
    verify_objects: bool = False

    @property
    def worker_options(self) -> WorkerOptions:
        """What of it decides the plan."""
        return WorkerOptions(
            self.fetch_workers,
            self.workers,
            self.encode_workers,
            self.put_workers,
            self.threads,
            self.queue_depth,
            self.audio_seconds,
        )


def open_decoding(options: EmbedOptions) -> MediaDecoding:
    """What decodes a run's media; the caller's to close."""
    if options.decode_isolation == "thread":
        return InThread()
    from clipfarm_assets.encoders.sandbox.pool import DecodeWorkers

    return DecodeWorkers(options.decode_memory_mib * 2**20)
