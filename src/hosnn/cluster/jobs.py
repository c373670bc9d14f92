"""Jobs on Ray: their order, retries when a worker is lost, and stopping.

Ray does the scheduling; no other module uses it.  A job must resume where it was stopped or killed, as retries rely on
that.
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
from hosnn.heap import keep_freed_memory

RETRIES = 3
"""Retries of a job whose worker, or whose whole machine, was lost."""

POLL_SECONDS = 0.2  # between checks for signals while waiting for jobs
GRACE_SECONDS = 5.0  # for workers to stop by themselves when the time is up
OBJECT_STORE = 128 * 2**20  # bytes, enough for the small values that are sent
HEADLESS = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}


@dataclass(frozen=True)
class Cluster:
    """Where jobs run, and what each of them gets.

    workers  jobs at a time on this machine; ignored on a cluster, which runs as many as it has room for
    address  HOST:PORT of a cluster's head, or "auto" for the one that this machine belongs to; None: this machine alone
    cpus, gpus  reserved for each job; gpus may be a fraction
    """

    workers: int = 1
    address: str | None = None
    cpus: int = 1
    gpus: float = 0.0


@dataclass(frozen=True)
class Job:
    """A call for a worker: `work(*arguments, deadline)`.

    work   a function that workers can import; it raises Interrupted when the deadline stops it
    after  name of an earlier job that has to end first; if that one fails, this one fails too
    """

    name: str
    work: Callable[..., Any]
    arguments: tuple[Any, ...]
    after: str = ""


@dataclass(frozen=True)
class Failed:
    """The outcome of a job that raised an error; a retry would not help."""

    error: str


@dataclass(frozen=True)
class Stopped:
    """The outcome of a job that was stopped and can be resumed."""


def run_jobs(jobs: Sequence[Job], cluster: Cluster, deadline: Deadline) -> Iterator[tuple[str, Any]]:
    """Run all jobs; yields (name, what its work returned, or Failed, or Stopped) as they end.

    The first Ctrl-C or SIGTERM asks all workers to stop at the next safe point; a second ends them at once.
    Raises ConfigError if Ray is not installed or the cluster is not there.
    """
    with stopping(deadline), _connected(cluster, deadline) as ray, stopping(deadline):  # Ray sets signals of its own
        attempt = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=RETRIES)(_attempt)
        until = None if deadline.left is None else time.time() + deadline.left  # machines share no monotonic clock
        running: dict[str, Any] = {}
        for job in jobs:
            running[job.name] = attempt.options(name=job.name).remote(job, until, running.get(job.after))
        names = {reference: name for name, reference in running.items()}
        waiting, cancelled, time_up_since = list(names), False, math.inf
        while waiting:
            if deadline.reached:
                time_up_since = min(time_up_since, time.monotonic())
            # Workers stop at the deadline themselves; jobs that are queued, or whose machine hangs, must be cancelled.
            if not cancelled and (deadline.signalled or time.monotonic() > time_up_since + GRACE_SECONDS):
                cancelled = True
                for reference in waiting:
                    ray.cancel(reference, force=False)  # to a worker this is a Ctrl-C
            ended, waiting = ray.wait(waiting, timeout=POLL_SECONDS)
            for reference in ended:
                yield names[reference], _outcome(ray, reference)


def _attempt(job: Job, until: float | None, outcome_before: Any = None) -> Any:
    """One job, on a worker.  Errors are returned as Failed, so that Ray does not retry it."""
    if isinstance(outcome_before, Failed):
        return Failed(f"{job.after}, which it starts from, failed: {outcome_before.error}")
    left = None if until is None else until - time.time()
    if isinstance(outcome_before, Stopped) or (left is not None and left <= 0):
        return Stopped()
    deadline = Deadline(left)
    try:
        keep_freed_memory()
        with stopping(deadline):
            return job.work(*job.arguments, deadline)
    except Interrupted:
        if deadline.signalled == signal.SIGTERM:
            os._exit(128 + signal.SIGTERM)  # the machine ends this worker, not the job: another worker resumes it
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
        reason = str(error.cause).partition("\n")[0]
        return Failed(f"its worker could not begin: {reason}; code of your own must be importable on every worker")
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        return Failed(
            f"its worker was lost {RETRIES + 1} times: {reason}; the same command resumes from its last checkpoint"
        )


@contextmanager
def _connected(cluster: Cluster, deadline: Deadline) -> Iterator[Any]:
    """Ray, started on this machine or joined, for as long as the context lasts.

    Raises Interrupted for a SIGTERM while it starts.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # Ray's future default; without it Ray warns
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            f"several workers need Ray, which cannot be imported here ({error}); install it with "
            "pip install 'hosnn[ray]'"
        ) from error
    try:
        if cluster.address is None:
            cpus = cluster.workers * cluster.cpus
            ray.init(address="local", num_cpus=cpus, object_store_memory=OBJECT_STORE, **HEADLESS)
        else:
            _check_address(cluster.address)
            ray.init(address=cluster.address, **HEADLESS)
    except SystemExit as error:  # raised by Ray for a SIGTERM
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
    """Raises ValueError for text that is no address, OSError if nothing answers there; Ray itself tries for minutes."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdigit()) or "/" in host:
        raise ValueError(
            f"address got {address!r}, expected HOST:PORT of the head (of a machine in the cluster) or auto"
        )
    socket.create_connection((host, int(port)), timeout=10).close()


def _check_room(nodes: Sequence[Any], cluster: Cluster) -> None:
    """Raises ConfigError if no machine is large enough for a job, which would then wait for ever."""
    needed = {"CPU": float(cluster.cpus), "GPU": cluster.gpus}
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    if not any(all(machine.get(kind, 0.0) >= amount for kind, amount in needed.items()) for machine in machines):
        most = {kind: max((machine.get(kind, 0.0) for machine in machines), default=0.0) for kind in needed}
        raise ConfigError(
            f"each job needs {cluster.cpus} CPU cores and {cluster.gpus:g} GPUs; the largest machine that Ray sees "
            f"has {most['CPU']:g} and {most['GPU']:g}: ask for less, or join a larger machine to the cluster"
        )
