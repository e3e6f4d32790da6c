"""A run's side of its cluster: Ray Data over blocks of clips, and what comes back, in order.

The run itself decides what is to be done, stores what comes back and writes the ledger; workers
need neither a database nor the right to write an object. A node that dies takes along what it was
computing: Ray repeats that elsewhere. Where Ray can't go on, as when a lost node's encoder fits no
other one, what is left is started anew on the nodes that are there.
"""

import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, Final
from uuid import uuid4

from clipfarm_assets.encoders.base import Encoder, ModelMismatch
from clipfarm_assets.pipelines.cluster import rows
from clipfarm_assets.pipelines.cluster.plan import (
    PUT_WORKERS,
    ClusterOptions,
    Shares,
    process_plan,
    share_out,
    work_plan,
)
from clipfarm_assets.pipelines.cluster.session import Session
from clipfarm_assets.pipelines.cluster.stations import EncodeStation, Recipe, decode_block
from clipfarm_assets.pipelines.embed_local import Work
from clipfarm_assets.pipelines.embed_steps import Clip, Embedded
from clipfarm_assets.pipelines.flow import batched
from clipfarm_assets.pipelines.progress import Say, silent
from clipfarm_assets.pipelines.workers import CPU, WorkPlan

WINDOW: Final = 16_384
"""Clips given to Ray at a time: so many rows are in memory, and encoders are started that often."""
FRUITLESS: Final = 3
"""So many starts in a row without one clip done, and it is given up."""
_CALLS: Final = 1000
"""Blocks after which a decoding process is replaced, so that none grows for ever."""


class ClusterFailed(RuntimeError):  # noqa: N818 - a state of the deployment
    """The cluster does nothing of what it is given."""


class RayEngine:
    """Fetches, decodes and encodes on a Ray cluster; see `embed_local.Engine`.

    Decoding is tasks, which run wherever there are cores; encoding is actors, each with one loaded
    encoder. Order is kept, so that failures in a row mean what they mean on one machine.
    """

    def __init__(
        self,
        work: Work,
        session: Session,
        options: ClusterOptions,
        open_encoder: Callable[[], Encoder],
        open_preparer: Callable[[], Encoder],
        say: Say = silent,
        token: str = "",
    ) -> None:
        """Connect to nothing yet.

        Args:
            work: What is to be done.
            session: The connection to Ray.
            options: How to use the cluster.
            open_encoder: Loads the encoder, on a worker that encodes.
            open_preparer: The same on one that decodes, where there may be no accelerator.
            say: Told of starts anew.
            token: Of engines with the same options and encoders, so that a process that decodes
                loads one once for all of a run's dates.
        """
        self._work, self._session, self._options, self._say = work, session, options, say
        self._open_encoder, self._open_preparer = open_encoder, open_preparer
        self._token = token or uuid4().hex
        self._shares: Shares | None = None
        self._starts = 0

    @property
    def plan(self) -> WorkPlan:
        """The cluster's workers; before it is known, this machine's, but for storing."""
        if self._shares is None:
            workers = self._work.options.put_workers or PUT_WORKERS
            return replace(self._work.plan_for(CPU), put_workers=workers)
        return work_plan(self._shares, self._work.options)

    @property
    def note(self) -> str:
        """See `Engine`."""
        if self._shares is None:
            return "ray: nothing to do, no cluster was asked"
        again = f"; {self._starts - 1} times started anew" if self._starts > 1 else ""
        return (
            f"ray: {self._shares.sentence()}{again}. As they were at the start; not measured: "
            "moving blocks between nodes, work that was lost with a worker, opening encoders there"
        )

    def embedded(self, clips: Iterable[Clip]) -> Generator[Embedded, None, None]:
        """See `Engine`.

        Raises:
            RayUnavailable: There is no Ray, or no cluster.
            ClusterTooSmall: A worker of the size asked for fits nowhere.
            ClusterFailed: The cluster does nothing of what it is given.
        """
        for window in batched(clips, WINDOW):
            yield from self._window(window)

    def _window(self, clips: Sequence[Clip]) -> Generator[Embedded, None, None]:
        """The clips, whatever becomes of the cluster meanwhile."""
        self._session.connect()
        from ray.data.exceptions import ExecutionTimeoutError
        from ray.exceptions import RayError

        done = fruitless = 0
        while done < len(clips):
            before = done
            try:
                with closing(self._execution(clips[done:], done)) as found:
                    for row in found:
                        if row["number"] != done:  # else vectors would be stored as others'
                            msg = f"expected clip {done} back from Ray, found {row['number']}"
                            raise ClusterFailed(msg)
                        yield self._one(row, clips[done])
                        done += 1
            except (RayError, ExecutionTimeoutError) as error:
                fruitless = 0 if done > before else fruitless + 1
                why = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
                if fruitless >= FRUITLESS:
                    msg = (
                        f"the Ray cluster made nothing of {len(clips) - done} clips, "
                        f"{fruitless} times in a row; the last time with {why}"
                    )
                    raise ClusterFailed(msg) from error
                self._say(f"{len(clips) - done} clips are started anew on the cluster: {why}")
            else:
                if done < len(clips):
                    msg = f"expected {len(clips)} clips back from Ray, found {done}"
                    raise ClusterFailed(msg)

    def _one(self, row: dict[str, Any], clip: Clip) -> Embedded:
        """What came back of a clip."""
        rows.raise_fault(row)
        self._work.meters.add(rows.uses_of(row["uses"]))
        expected = self._work.encoder().version.id if row["version"] else ""
        if row["version"] != expected:
            msg = (
                f"expected the cluster's encoder to be of version {expected}, as this machine's, "
                f"found {row['version']}: give all machines the same models and parameters"
            )
            raise ModelMismatch(msg)
        return rows.embedded_of(row, clip)

    def _execution(
        self, clips: Sequence[Clip], first: int
    ) -> Generator[dict[str, Any], None, None]:
        """One pass of Ray Data over the clips; their rows, in order."""
        import ray

        shares = share_out(self._options, self._work.modality, self._session.nodes())
        self._shares, self._starts = shares, self._starts + 1
        options = self._work.options
        recipe = Recipe(
            self._work.deployment.store,
            self._work.deployment.layout,
            self._work.modality,
            options,
            process_plan(shares, options),
            self._open_encoder,
            self._open_preparer,
            token=f"{self._token}/{shares.decode_threads}",
        )
        context = ray.data.DataContext.get_current()
        logging.getLogger("ray.data").setLevel(logging.WARNING)  # else a line for each execution
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.execution_no_progress_timeout_s = self._options.stalled_seconds
        blocks = []
        for some in batched(clips, shares.block_clips):
            blocks.append(rows.clips_table(some, first))
            first += len(some)
        made = (
            ray.data.from_arrow(blocks)
            .map_batches(
                decode_block,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"recipe": recipe},
                num_cpus=shares.decode_cpus,
                max_calls=_CALLS,
            )
            .map_batches(
                EncodeStation,
                batch_size=shares.block_clips,
                batch_format="pyarrow",
                fn_constructor_kwargs={"recipe": recipe},
                num_cpus=shares.encode_cpus,
                num_gpus=shares.encode_gpus,
                compute=ray.data.ActorPoolStrategy(size=min(shares.encoders, len(blocks))),
            )
        )
        for table in made.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from table.to_pylist()
