"""Ray: whether it is installed, whether a cluster answers, and what its machines have."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from itda_core.errors import InputError, ItdaError, first_line

_PATIENCE = 5.0
"""Seconds in which the address of a cluster has to answer"""
_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client begins, with settings of its own, which are none"""
_HOW_TO_START = (
    'Start one with "ray start --head" on one machine and "ray start --address=HOST:6379" on the '
    "others, this one among them."
)


@contextmanager
def connected(address: str) -> Iterator[ModuleType]:
    """The module ray, connected to the cluster at an address, "HOST:PORT" or "auto" for the one of
    this machine; as it is, where this process is connected. Nothing of what Ray tells reaches the
    standard streams. Raises ItdaError with the remedy."""
    ray = _ray()
    if ray.is_initialized():
        yield ray
        return
    _check_answers(address)
    try:
        with _signals_kept():
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        told = f"There is no connection to the cluster at {address}: {first_line(error)}."
        raise ItdaError(f"{told} {_HOW_TO_START}") from error
    try:
        _silence()
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself, by which a command stops where its state is whole."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise InputError(
            'Ray is not installed. Run: pip install "itda-explorer[ray]" – on each machine of the '
            "cluster."
        ) from error
    return ray


def _check_answers(address: str) -> None:
    """Raises InputError where nothing answers: Ray itself would wait for minutes."""
    found = _found_here() if address == "auto" else address
    if not found:
        raise InputError(
            f"No cluster runs on this machine. {_HOW_TO_START} One that runs with a --temp-dir of "
            "its own is named by its HOST:PORT, in place of auto or as RAY_ADDRESS."
        )
    if "://" in found:
        raise InputError(
            f"{found} is the address of a Ray client. Start the training on a machine of the "
            "cluster, with its HOST:PORT or auto."
        )
    host, _, port = found.rpartition(":")
    if not host or not port.isdigit():
        if address == "auto":
            raise InputError(
                f"RAY_ADDRESS says {found!r:.60}, which is no cluster's HOST:PORT. Unset it, or "
                "name the cluster in place of auto."
            )
        raise InputError(f"The address of a cluster is HOST:PORT, or auto, and not {address!r}.")
    try:
        _greet(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        told = f"No cluster answers at {found} ({first_line(error)})."
        raise InputError(f"{told} {_HOW_TO_START}") from error


def _greet(host: str, port: int) -> None:
    """Raises OSError where nothing speaks HTTP/2, as a cluster does (gRPC)."""
    with socket.create_connection((host, port), _PATIENCE) as connection:
        connection.sendall(_HTTP2)
        answer = connection.recv(9, socket.MSG_WAITALL)
    is_settings = answer[3:4] == b"\x04"
    if not is_settings and answer[:1] != b"\x15":  # one that takes TLS alone says so
        raise ConnectionError("something else is there")


def _found_here() -> str | None:
    """The address of the cluster that this machine belongs to, as Ray notes it."""
    if (said := os.environ.get("RAY_ADDRESS", "")) not in ("", "auto"):
        return said
    from ray._private.utils import read_ray_address

    return read_ray_address()


def _silence() -> None:
    """Stop the thread that prints to standard output what happens on the cluster, such as a machine
    that is lost, which this package tells in its own words."""
    from ray._private.worker import global_worker

    with suppress(AttributeError):  # of other versions of Ray
        global_worker.threads_stopped.set()
        global_worker.gcs_error_subscriber.close()


@dataclass(frozen=True)
class Size:
    """How many workers there are, and what each has."""

    workers: int
    cpus: int
    gpus: int
    """0 or 1"""

    @property
    def in_words(self) -> str:
        """What each has."""
        cpus = "1 CPU" if self.cpus == 1 else f"{self.cpus} CPUs"
        return f"{cpus} and a GPU" if self.gpus else cpus

    @property
    def resources(self) -> dict[str, int]:
        """As Ray takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus}


def size_of(machines: list[dict[str, Any]], workers: int | None) -> Size:
    """The workers of a cluster: one for each GPU, where it has any, else one for each machine with
    CPUs; or as many as are asked for, with as many CPUs each as they all can have.

    machines: as ray.nodes() gives them. Raises InputError where nothing can work.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers must be at least 1, got {workers}.")
    each = [machine["Resources"] for machine in machines if machine["Alive"]]
    gpus = [(int(one.get("GPU", 0)), int(one.get("CPU", 0))) for one in each if one.get("GPU")]
    if gpus:
        count = min(workers or sum(n for n, _ in gpus), sum(n for n, _ in gpus))
        return Size(count, min(cpus // n for n, cpus in gpus), 1)
    cpus = [int(one["CPU"]) for one in each if one.get("CPU", 0) >= 1]
    if not cpus:
        raise InputError("No machine of the cluster has a CPU or GPU for Ray to give away.")
    count = min(workers or len(cpus), sum(cpus))
    most = range(max(cpus), 0, -1)
    return Size(count, next(n for n in most if sum(cpu // n for cpu in cpus) >= count), 0)


def together(machines: list[dict[str, Any]], size: Size) -> int:
    """How many workers may share the memory of one machine, or of one GPU, at most."""
    if size.gpus:
        return 1
    cpus = [int(one["Resources"].get("CPU", 0)) for one in machines if one["Alive"]]
    return max(min(size.workers, count // size.cpus) for count in cpus)


@dataclass(frozen=True)
class Shared:
    """Something that lies in the memory of the cluster, and is fetched by who calls it."""

    reference: Any

    def __call__(self) -> Any:
        import ray

        return ray.get(self.reference)
