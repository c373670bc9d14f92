"""Jobs run in this process, in the place of Ray."""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from hosnn.cluster.jobs import Cluster, Job, _attempt
from hosnn.deadline import Deadline

DONE: list[str] = []
"""Names of the jobs that were run."""


def one_after_the_other(todo: Sequence[Job], cluster: Cluster, deadline: Deadline) -> Iterator[tuple[str, Any]]:
    until = None if deadline.left is None else time.time() + deadline.left
    ended: dict[str, Any] = {}
    for task in todo:
        DONE.append(task.name)
        ended[task.name] = _attempt(task, until, ended.get(task.after))
        yield task.name, ended[task.name]
