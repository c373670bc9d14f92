"""Tasks on Ray: what waits for what, what is tried again when its worker is lost, and how they stop.

Ray does the scheduling; this module is all that knows it.  A task's work must be able to go on where it was stopped or
killed, for that is what trying again relies on.
"""

import math
import os
import signal
import socket
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hosnn.deadline import Deadline, Interrupted, stopping
from hosnn.errors import ConfigError, HosnnError

RETRIES = 3
"""How often a task begins anew whose worker, or whose whole machine, was lost."""

LOOK_EVERY = 0.2  # seconds between looks at signals while waiting for tasks
GRACE = 5.0  # seconds that workers have to stop by themselves when the time is up
OBJECT_STORE = 128 * 2**20  # bytes; next to nothing is sent
HEADLESS = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}


@dataclass(frozen=True)
class Cluster:
    """Where tasks run, and what each of them gets.

    workers  tasks at a time on this machine; without meaning on a cluster, which does as many as it has room for
    address  HOST:PORT of a cluster's head, or "auto" for the one that this machine belongs to; None: this machine alone
    cpus, gpus  of one task, set aside for it; gpus may be a fraction
    """

    workers: int = 1
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Job:
    """Something to do: `work(*arguments, deadline)`.

    work   a function that workers can import; it raises Interrupted when the deadline stops it
    after  name of an earlier task that has to be done first; if that fails, this one fails too
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: str = ""


@dataclass(frozen=True)
class Failed:
    """How a task ended that cannot be done; trying again would not help."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """How a task ended that may go on another time."""


def carried_out(tasks: Sequence[Job], cluster: Cluster, deadline: Deadline) -> Iterator[tuple[str, Any]]:
    """Do all tasks; yields (name, what the work returned, or Failed, or Stopped) as they end.

    The first Ctrl-C or SIGTERM asks all workers to stop at the next safe point; a second ends them at once.
    Raises ConfigError if Ray is not installed or the cluster is not there.
    """
    with stopping(deadline), _connected(cluster, deadline) as ray, stopping(deadline):  # Ray sets signals of its own
        attempt = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=RETRIES)(_attempt)
        until = None if deadline.left is None else time.time() + deadline.left  # as clocks of other machines tell it
        running: dict[str, Any] = {}
        for task in tasks:
            running[task.name] = attempt.options(name=task.name).remote(task, until, running.get(task.after))
        names = {reference: name for name, reference in running.items()}
        waiting, asked, over = list(names), False, math.inf
        while waiting:
            if deadline.reached:
                over = min(over, time.monotonic())
            # Workers know until when; those that wait for room, or whose machine hangs, have to be told.
            if not asked and (deadline.signalled or time.monotonic() > over + GRACE):
                asked = True
                for reference in waiting:
                    ray.cancel(reference, force=False)  # to a worker this is a Ctrl-C
            ended, waiting = ray.wait(waiting, timeout=LOOK_EVERY)
            for reference in ended:
                yield names[reference], _outcome(ray, reference)


def _attempt(task: Job, until: float | None, before: Any = None) -> Any:
    """One task, on a worker.  What a user can mend comes back as a value, so that Ray does not try it again."""
    if isinstance(before, Failed):
        return Failed(f"{task.after}, which it starts from, failed: {before.error}")
    left = None if until is None else until - time.time()
    if isinstance(before, Stopped) or (left is not None and left <= 0):
        return Stopped()
    deadline = Deadline(left)
    try:
        with stopping(deadline):
            return task.work(*task.arguments, deadline)
    except Interrupted:
        if deadline.signalled == signal.SIGTERM:
            os._exit(128 + signal.SIGTERM)  # the machine wants this worker gone, not the task: another goes on with it
        return Stopped()
    except HosnnError as error:
        return Failed(str(error))
    except Exception as error:
        traceback.print_exc()  # to Ray's log
        return Failed(f"{type(error).__name__}: {error}")


def _outcome(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.TaskCancelledError:
        return Stopped()
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ray.exceptions.TaskCancelledError):
            return Stopped()
        said = str(error.cause).partition("\n")[0]
        return Failed(f"its worker could not begin: {said}; code of your own must be importable on every worker")
    except ray.exceptions.RayError as error:
        said = " ".join(str(error).split())
        return Failed(
            f"its worker was lost {RETRIES + 1} times: {said}; the same command goes on from its last checkpoint"
        )


@contextmanager
def _connected(cluster: Cluster, deadline: Deadline) -> Iterator[Any]:
    """Ray, started on this machine or joined, for as long as the context lasts.

    Raises Interrupted for a SIGTERM while it starts.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what it warns that it will do anyway
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"work on several workers is handed out by Ray, which cannot be imported here ({error}); install it with "
            "pip install 'hosnn[ray]'"
        ) from error
    try:
        if cluster.address is None:
            cpus = cluster.workers * cluster.cpus
            ray.init(address="local", num_cpus=cpus, object_store_memory=OBJECT_STORE, **HEADLESS)
        else:
            _check_address(cluster.address)
            ray.init(address=cluster.address, **HEADLESS)
    except SystemExit as error:  # what Ray makes of a SIGTERM
        deadline.signalled = signal.SIGTERM
        raise Interrupted("while Ray started", deadline) from error
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"cannot use Ray at {cluster.address or 'this machine'}: {error}; start a cluster with `ray start --head` "
            "(where it asks for tokens, set RAY_AUTH_MODE=token here too), or leave out --address to work on this "
            "machine alone"
        ) from error
    try:
        _check_room(ray.nodes(), cluster)
        yield ray
    finally:
        with stopping(deadline):
            ray.shutdown()


def _check_address(address: str) -> None:
    """Raises ValueError for what is no address, and OSError if nobody is there: Ray itself would try for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in host:
        raise ValueError(
            f"address got {address!r}, expected HOST:PORT of the head (of a machine in the cluster) or auto"
        )
    socket.create_connection((host, int(port)), timeout=10).close()


def _check_room(nodes: Sequence[Any], cluster: Cluster) -> None:
    """Raises ConfigError if no machine is large enough for a task, which would then wait for ever."""
    wanted = {"CPU": float(cluster.cpus), "GPU": cluster.gpus}
    found = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(has.get(kind, 0.0) >= amount for kind, amount in wanted.items()) for has in found):
        most = {kind: max((has.get(kind, 0.0) for has in found), default=0.0) for kind in wanted}
        raise ConfigError(
            f"each task wants {cluster.cpus} CPU cores and {cluster.gpus:g} GPUs; the largest machine that Ray sees "
            f"has {most['CPU']:g} and {most['GPU']:g}: ask for less, or join a larger machine to the cluster"
        )
