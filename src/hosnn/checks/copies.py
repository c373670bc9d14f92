"""Do copies of a model answer as it does, also while another copy runs?  Attacks on several threads run on copies.

State kept outside the modules is where this goes wrong: a list of all neurons of a class, by which a model resets
itself, does not hold the copies' neurons, and a variable of a class is shared by all threads.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import PicklingError

from torch import Tensor, nn

from hosnn.checks.measurements import BLOCK, relative_difference, seeded_scores

COPY_ERRORS = (TypeError, RuntimeError, ValueError, AttributeError, copy.Error, PicklingError)
"""Errors of copying a module that holds open files, locks, generators or tensors with a graph."""

INTERRUPTIONS = 16
"""Calls of modules before which another copy runs."""


def difference_of_copies(model: nn.Module, x: Tensor, seed: int) -> float | None:
    """Largest difference between the model's logits and copies', relative to their spread; None: no copy can be made.

    A copy is asked three times, the third time while another copy runs, as in another thread.
    """
    try:
        first, second = (
            copy.deepcopy(model, memo={id(parameter): parameter for parameter in model.parameters()}) for _ in range(2)
        )
    except COPY_ERRORS:
        return None
    x = x[:BLOCK]
    other = 1 - x.flip(0)
    own = seeded_scores(model, x, seed)
    answers = [seeded_scores(first, x, seed)]
    seeded_scores(first, other, seed)
    answers.append(seeded_scores(first, x, seed))
    with _interrupted_by(first, second, other):
        answers.append(seeded_scores(first, x, seed))
    return max(relative_difference(own, answer) for answer in answers)


@contextmanager
def _interrupted_by(model: nn.Module, other: nn.Module, x: Tensor) -> Iterator[None]:
    """Inside, `other` is called on x before calls of modules inside `model`, as a thread might be."""
    remaining = INTERRUPTIONS

    def run_other(module: nn.Module, arguments: object) -> None:
        nonlocal remaining
        if remaining > 0:
            remaining -= 1
            other(x)

    handles = [
        module.register_forward_pre_hook(run_other)
        for module in model.modules()
        if module is not model and not any(module.children())
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
