"""A run's connection to Ray: made when first needed, and closed with the run."""

import importlib.util
import os
import socket
from threading import Lock
from types import TracebackType
from typing import Final, Self

from clipfarm_assets.pipelines.cluster.plan import Node

_PACKAGES: Final = ("ray", "pandas")
"""What Ray Data imports: pandas is its own requirement, and none of ours."""

_KNOCK_SECONDS: Final = 10.0


class RayUnavailable(RuntimeError):  # noqa: N818 - a state of the deployment
    """The engine ``ray`` was asked for, and Ray isn't installed or can't be reached."""


def require_ray(*packages: str) -> None:
    """Say at the start what a run would find out in its midst.

    Args:
        packages: What is needed; by default what the engine does.

    Raises:
        RayUnavailable: One of them is not installed.
    """
    absent = [name for name in packages or _PACKAGES if importlib.util.find_spec(name) is None]
    if absent:
        msg = (
            f"engine: ray needs {' and '.join(absent)}, not installed here: in the "
            "checkout, run pip install --constraint constraints.txt '.[ray]', or set engine: local"
        )
        raise RayUnavailable(msg)


class Session:
    """Ray for one run; for a ``with`` block. A run that has nothing to do starts none."""

    def __init__(self, address: str = "") -> None:
        """Connect to nothing yet.

        Args:
            address: ``auto`` or ``host:port`` of a cluster that this machine is a node of; empty
                to start Ray on this machine, for this run.
        """
        self._address = address
        self._lock, self._is_connected = Lock(), False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go of the cluster; one that was started here ends."""
        self.close()

    def connect(self) -> None:
        """Be connected.

        Raises:
            RayUnavailable: There is no Ray, or no cluster at the address.
        """
        require_ray()
        with self._lock:
            if self._is_connected:
                return
            # What is started here reports to nobody.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            import ray

            if not ray.is_initialized():
                # One that is started here is nobody else's: it listens on loopback alone.
                here = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
                local = {} if self._address else here
                try:
                    _knock(self._address)
                    ray.init(
                        address=self._address or "local",
                        log_to_driver=False,
                        logging_level="WARNING",
                        **local,
                    )
                except (OSError, ValueError, RuntimeError) as error:
                    msg = (
                        f"cannot reach a Ray cluster at {self._address or 'this machine'}: "
                        f"{error}; this machine has to be one of its nodes, or give the address "
                        "of its job server, http://host:8265"
                    )
                    raise RayUnavailable(msg) from error
                self._is_connected = True

    def nodes(self) -> list[Node]:
        """The machines that are alive."""
        import ray

        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return [Node(one.get("CPU", 0.0), one.get("GPU", 0.0)) for one in alive]

    def close(self) -> None:
        """Disconnect, if this connected."""
        with self._lock:
            if self._is_connected:
                import ray

                ray.shutdown()
                self._is_connected = False


def _knock(address: str) -> None:
    """Find out at once that nobody listens, where Ray would ask again for minutes.

    Raises:
        OSError: Nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()
